"""Flows that share a batcher fairly, and an engine that fails again and again."""

from __future__ import annotations

import asyncio
import time

from foundation.engine.base import TokenTree
from prompts.errors import CapacityError
from serve.batcher import FAILURES, PATIENCE_S, SHORT_S, Batcher, Limits, Pace
from serve.lane import Lane
from tests.serve.batching import now, reason_of, run, until
from tests.serve.conftest import Controlled, tree_of


def test_a_flood_does_not_starve_another_flow(engine: Controlled) -> None:
    """Each batch has room for two trees; the other flow's one goes with the next batch, though it is less urgent."""
    tree = engine.read(tree_of(1))
    engine.delay_s = 0.01

    async def work(batcher: Batcher) -> tuple[int, list[str]]:
        end = now() + 10
        done: list[str] = []

        async def ask(flow: str, deadline: float) -> None:
            await batcher.score(tree, deadline, flow=flow)
            done.append(flow)

        flood = [asyncio.create_task(ask("flood", end)) for _ in range(40)]
        await until(lambda: batcher.waiting >= 38 or len(done) > 0)
        before = len(engine.batches)
        await ask("other", end + 10)
        taken = len(engine.batches) - before
        await asyncio.gather(*flood)
        return taken, done

    taken, done = run(Batcher(engine, Limits(batch_slots=2 * tree.size, gather_s=0.0)), work)
    assert taken <= 2, "the one that ran, and the next"
    assert done.count("flood") == 40
    assert sorted(engine.batches)[-1] == 2


def test_beside_another_flow_batches_are_short_and_who_asks_little_comes_first(engine: Controlled) -> None:
    """What came while the engine was busy goes together with the next batch, which has time for no more."""
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> list[int]:
        flood = [asyncio.create_task(batcher.score(tree, now() + 10, flow="flood")) for _ in range(40)]
        await until(lambda: len(engine.batches) == 2)
        engine.gate.clear()
        await until(lambda: batcher.waiting in range(1, 25))
        little = [asyncio.create_task(batcher.score(tree, now() + 20, flow="little")) for _ in range(3)]
        await until(lambda: batcher._queued.get("little") == 3 * tree.size)
        before = len(engine.batches)
        engine.gate.set()
        await asyncio.gather(*little)
        taken = engine.batches[before:]
        await asyncio.gather(*flood)
        return taken

    pace, engine.delay_s = Pace(SHORT_S / (3.5 * tree.size)), 0.1
    taken = run(Batcher(engine, Limits(batch_slots=8 * tree.size, gather_s=0.005), pace), work)
    assert engine.batches[0] == 8
    assert 1 <= len(taken) <= 2, "one may have been on its way"
    assert taken[-1] == 3


def test_who_asks_for_little_does_not_wait_for_company(engine: Controlled) -> None:
    """Work that came before the engine asked for its turn goes first, unless a flow waits that took little lately."""
    tree, lane, forwards = engine.read(tree_of(1)), Lane(), list[int]()

    async def next_to(flow: str, batcher: Batcher) -> None:
        """A tree of a flow comes while others compute, and then a job for the same lane."""
        lane.acquire()
        asked = asyncio.create_task(batcher.score(tree, now() + 10, flow=flow))
        await until(lambda: len(lane._waiting) == 1)
        lane.submit(lambda: forwards.append(len(engine.batches)), -PATIENCE_S)
        lane.release()
        await asked

    async def work(batcher: Batcher) -> None:
        await batcher.score(tree, now() + 10, flow="flood")
        await next_to("flood", batcher)
        await next_to("other", batcher)
        await until(lambda: len(forwards) == 2)

    run(Batcher(engine, Limits(gather_s=0.0), lane=lane), work)
    assert forwards == [1, 3], "so many there had been: the flood's was still to come, the other's was not"


def test_who_asks_for_little_may_ask_for_several_at_once(engine: Controlled) -> None:
    """A flow that took a quarter of each batch, beside one that always waits, has the next one for itself."""
    tree = engine.read(tree_of(1))
    batcher, end = Batcher(engine, Limits(batch_slots=4 * tree.size)), time.monotonic() + 60
    batcher.put([tree] * 40, end, "flood")
    for _ in range(8):
        batcher.put([tree], end + 10, "little")
        assert sorted(each.flow for each in batcher._take(time.monotonic())) == ["flood"] * 3 + ["little"]
    batcher.put([tree] * 4, end + 10, "little")
    assert [each.flow for each in batcher._take(time.monotonic())] == ["little"] * 4


def test_who_had_the_engine_for_itself_does_not_wait_long_for_it(engine: Controlled) -> None:
    """Forwards have room for 64 trees while nobody else asks, and time for four beside another flow."""
    tree, end = engine.read(tree_of(1)), time.monotonic() + 60
    batcher = Batcher(engine, Limits(batch_slots=64 * tree.size, queue_slots=10**9), Pace(SHORT_S / (4.5 * tree.size)))
    for _ in range(10):
        batcher.put([tree] * 64, end, "first")
        assert len(batcher._take(time.monotonic())) == 64
    batcher.put([tree] * 99, end, "first")
    batcher.put([tree] * 99, end, "flood")
    taken = [{each.flow for each in batcher._take(time.monotonic())} for _ in range(12)]
    assert taken[0] == {"flood"}
    assert all("first" in flows for flows in taken[8:])


def test_nobody_waits_for_company_that_would_have_no_room(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> None:
        asked = batcher.put([tree] * 4, now() + 10)
        await asyncio.gather(*map(asyncio.wrap_future, asked))

    run(Batcher(engine, Limits(batch_slots=2 * tree.size, gather_s=60.0)), work)
    assert engine.batches == [2, 2]


def test_who_asks_for_little_and_came_during_a_forward_does_not_wait_for_company(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> None:
        engine.gate.clear()
        flood = batcher.put([tree] * 2, now() + 10, "flood")
        await until(lambda: bool(engine.batches))
        little = batcher.put([tree], now() + 10, "little")
        engine.gate.set()
        await asyncio.gather(*map(asyncio.wrap_future, [*flood, *little]))

    run(Batcher(engine, Limits(batch_slots=2 * tree.size, gather_s=60.0)), work)
    assert engine.batches == [2, 1]


def test_two_flows_get_equal_shares(engine: Controlled) -> None:
    """However many trees each sends, and however large they are, both are served as many slots while both wait."""
    small, large = engine.read(tree_of(1)), engine.read(tree_of(12))

    async def work(batcher: Batcher) -> list[tuple[str, int]]:
        done: list[tuple[str, int]] = []

        async def ask(flow: str, tree: TokenTree) -> None:
            await batcher.score(tree, now() + 20, flow=flow)
            done.append((flow, tree.size))

        engine.gate.clear()
        first = asyncio.create_task(batcher.score(small, now() + 20))
        await until(lambda: bool(engine.batches))
        asked = [asyncio.create_task(ask("small", small)) for _ in range(60)]
        asked += [asyncio.create_task(ask("large", large)) for _ in range(30)]
        await until(lambda: batcher.waiting == 90)
        engine.gate.set()
        await asyncio.gather(first, *asked)
        return done

    done = run(Batcher(engine, Limits(batch_slots=large.size + small.size, gather_s=0.0)), work)
    last = max(place for place, (flow, _) in enumerate(done) if flow == "small")
    served = {flow: sum(size for name, size in done[: last + 1] if name == flow) for flow in ("small", "large")}
    assert abs(served["small"] - served["large"]) <= 2 * large.size


def test_a_full_queue_makes_room_for_a_flow_that_has_little_in_it(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> tuple[list[str], str, float]:
        engine.gate.clear()
        running = asyncio.create_task(batcher.score(tree, now() + 10))
        await until(lambda: bool(engine.batches))
        end = now() + 10
        flood = [asyncio.create_task(batcher.score(tree, end + place, flow="flood")) for place in range(4)]
        await until(lambda: batcher.waiting == 4)
        refused = await reason_of(batcher.score(tree, end, flow="flood"))
        other = asyncio.create_task(batcher.score(tree, end, flow="other"))
        await until(lambda: any(task.done() for task in flood))
        assert [task.done() for task in flood] == [False, False, False, True], "the least urgent"
        gave = await reason_of(flood[-1])
        engine.gate.set()
        await asyncio.gather(running, other, *flood[:-1])
        return [refused, gave], "done", batcher.queued_slots

    reasons, _, left = run(Batcher(engine, Limits(queue_slots=4 * tree.size, gather_s=0.0)), work)
    assert reasons == ["capacity", "capacity"]
    assert left == 0


def test_room_is_made_only_by_those_who_have_more(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> str:
        engine.gate.clear()
        running = asyncio.create_task(batcher.score(tree, now() + 10))
        await until(lambda: bool(engine.batches))
        waiting = [asyncio.create_task(batcher.score(tree, now() + 10, flow=flow)) for flow in "abab"]
        await until(lambda: batcher.waiting == 4)
        reason = await reason_of(batcher.score(engine.read(tree_of(9)), now() + 10, flow="c"))
        assert not any(task.done() for task in waiting)
        engine.gate.set()
        await asyncio.gather(running, *waiting)
        return reason

    assert run(Batcher(engine, Limits(queue_slots=4 * tree.size, gather_s=0.0)), work) == "capacity"


def test_a_flow_that_was_away_does_not_make_up_for_it(engine: Controlled) -> None:
    """It comes first for a batch or two, and then in turn: what it did not ask for is not owed to it."""
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> list[str]:
        done: list[str] = []

        async def ask(flow: str) -> None:
            await batcher.score(tree, now() + 20, flow=flow)
            done.append(flow)

        engine.gate.clear()
        first = asyncio.create_task(ask("long"))
        await until(lambda: bool(engine.batches))
        long = [asyncio.create_task(ask("long")) for _ in range(20)]
        await until(lambda: batcher.waiting == 20)
        engine.gate.set()
        await until(lambda: len(done) >= 8)
        new = [asyncio.create_task(ask("new")) for _ in range(8)]
        await asyncio.gather(first, *long, *new)
        return done

    done = run(Batcher(engine, Limits(batch_slots=tree.size, gather_s=0.002)), work)
    start = done.index("new")
    assert 2 <= done[start : start + 8].count("new") <= 6, "in turn"


# ---------------------------------------------------------------- the circuit breaker


def test_an_engine_that_fails_again_and_again_is_left_alone(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> None:
        engine.error = RuntimeError("out of order")
        for _ in range(FAILURES):
            assert await reason_of(batcher.score(tree, now() + 5)) == "engine"
        tried = len(engine.batches)
        began = now()
        while now() - began < 2.0:
            assert await reason_of(batcher.score(tree, now() + 5)) == "engine"
            await asyncio.sleep(0.002)
        assert 2 <= len(engine.batches) - tried <= 6, "0.1, 0.2, 0.4, 0.8 s apart, and every second"
        engine.error = None
        await until(lambda: batcher.breaker.lets(now()))
        await batcher.score(tree, now() + 5)
        assert not batcher.breaker.open
        await asyncio.gather(*(batcher.score(tree, now() + 5) for _ in range(10)))

    run(Batcher(engine, Limits(gather_s=0.0)), work)


def test_only_one_batch_tries_an_engine_that_failed(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> list[str]:
        engine.error = RuntimeError("out of order")
        for _ in range(FAILURES):
            await reason_of(batcher.score(tree, now() + 5))
        await until(lambda: batcher.breaker.lets(now()))
        engine.gate.clear()
        before = len(engine.batches)
        first = asyncio.create_task(reason_of(batcher.score(tree, now() + 5)))
        await until(lambda: len(engine.batches) > before)
        others = [await reason_of(batcher.score(tree, now() + 5)) for _ in range(5)]
        engine.gate.set()
        return [*others, await first]

    assert run(Batcher(engine, Limits(gather_s=0.0)), work) == ["engine"] * 6


def test_a_tree_that_is_too_large_says_nothing_of_the_engine(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> None:
        engine.error = CapacityError("too large")
        for _ in range(2 * FAILURES):
            assert await reason_of(batcher.score(tree, now() + 5)) == "capacity"
        assert not batcher.breaker.open

    run(Batcher(engine, Limits(gather_s=0.0)), work)
