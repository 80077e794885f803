"""The batcher: one forward for many, nobody waits past a deadline, nothing leaks."""

from __future__ import annotations

import asyncio
import threading

import numpy as np
import pytest

from foundation.engine.base import LeafScores, TokenTree
from prompts.errors import CapacityError
from serve.batcher import MEASURED_SLOTS, Batcher, Limits, Pace, Scored
from serve.degraded import DegradedError
from tests.serve.batching import now, reason_of, run, until
from tests.serve.conftest import Controlled, tree_of


def test_concurrent_trees_share_one_forward_and_keep_their_scores(engine: Controlled) -> None:
    trees = [engine.read(tree_of(n, text)) for n, text in ((1, "a film"), (7, "a song"), (3, "a job"))]
    alone = [engine.engine.score([tree])[0] for tree in trees]

    async def work(batcher: Batcher) -> list[Scored]:
        return await asyncio.gather(*(batcher.score(tree, now() + 10) for tree in trees))

    together = run(Batcher(engine, Limits(gather_s=0.05)), work)
    assert engine.batches == [3]
    for scored, expected in zip(together, alone, strict=True):
        np.testing.assert_allclose(scored.scores.table(), expected.table(), atol=1e-5)
        assert scored.queue_s >= 0.04
        assert scored.score_s > 0


def test_the_engine_never_runs_on_the_event_loop(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> None:
        await batcher.score(tree, now() + 10)
        await batcher.score(tree, now() + 10)

    run(Batcher(engine), work)
    assert len(engine.threads) == 1
    assert threading.get_ident() not in engine.threads


def test_what_arrives_during_a_forward_goes_into_the_next_one(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    engine.gate.clear()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.score(tree, now() + 10))
        await until(lambda: engine.batches == [1])
        others = [asyncio.create_task(batcher.score(tree, now() + 10)) for _ in range(5)]
        await until(lambda: batcher.waiting == 5)
        engine.gate.set()
        await asyncio.gather(first, *others)

    run(Batcher(engine), work)
    assert engine.batches == [1, 5]


def test_a_batch_takes_no_more_slots_than_it_may(engine: Controlled) -> None:
    tree = engine.read(tree_of(4))

    async def work(batcher: Batcher) -> None:
        await asyncio.gather(*(batcher.score(tree, now() + 10) for _ in range(5)))

    run(Batcher(engine, Limits(batch_slots=2 * tree.size + 1, gather_s=0.02)), work)
    assert engine.batches == [2, 2, 1]


def test_the_most_urgent_goes_first(engine: Controlled) -> None:
    tree = engine.read(tree_of(4))
    finished: list[str] = []

    async def ask(batcher: Batcher, name: str, seconds: float) -> None:
        await batcher.score(tree, now() + seconds)
        finished.append(name)

    async def work(batcher: Batcher) -> None:
        await asyncio.gather(ask(batcher, "patient", 30), ask(batcher, "urgent", 10), ask(batcher, "later", 20))

    run(Batcher(engine, Limits(batch_slots=tree.size, gather_s=0.02)), work)
    assert finished == ["urgent", "later", "patient"]


def test_a_forward_leaves_out_what_would_make_the_urgent_one_late(engine: Controlled) -> None:
    tree = engine.read(tree_of(4))
    pace = Pace(seconds_per_slot=1.0 / tree.size)  # one second a tree

    async def work(batcher: Batcher) -> None:
        await asyncio.gather(batcher.score(tree, now() + 1.5), batcher.score(tree, now() + 30))

    run(Batcher(engine, Limits(gather_s=0.02), pace), work)
    assert engine.batches == [1, 1]


def test_those_that_are_late_already_do_not_make_others_late(engine: Controlled) -> None:
    tree = engine.read(tree_of(4))
    pace = Pace(seconds_per_slot=1.0 / tree.size)  # one second a tree

    async def work(batcher: Batcher) -> None:
        late = [reason_of(batcher.score(tree, now() + 0.4)) for _ in range(3)]
        began = now()
        reasons = asyncio.gather(*late)
        in_time = asyncio.create_task(batcher.score(tree, began + 5))
        assert await reasons == ["deadline"] * 3
        assert now() - began < 0.3, "they are let go before their deadline"
        await in_time

    run(Batcher(engine, Limits(gather_s=0.02), pace), work)
    assert engine.batches == [1]


def test_past_the_deadline_the_caller_is_let_go_and_the_answer_dropped(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    engine.gate.clear()

    async def work(batcher: Batcher) -> float:
        began = now()
        assert await reason_of(batcher.score(tree, began + 0.05)) == "deadline"
        waited = now() - began
        engine.gate.set()
        assert (await batcher.score(tree, now() + 10)).scores.logp
        return waited

    assert 0.05 <= run(Batcher(engine), work) < 0.1


def test_what_waits_past_its_deadline_never_reaches_the_engine(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    engine.gate.clear()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.score(tree, now() + 10))
        await until(lambda: engine.batches == [1])
        assert await reason_of(batcher.score(tree, now() + 0.3)) == "deadline"
        assert batcher.waiting == 0
        engine.gate.set()
        await first
        await asyncio.sleep(0.02)

    run(Batcher(engine), work)
    assert engine.batches == [1]


def test_a_deadline_that_has_passed_is_refused_at_once(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    assert run(Batcher(engine), lambda batcher: reason_of(batcher.score(tree, now() - 1))) == "deadline"
    assert engine.batches == []


def test_when_the_engine_is_clearly_busy_past_the_deadline_the_caller_is_let_go_at_once(engine: Controlled) -> None:
    tree = engine.read(tree_of(4))
    engine.gate.clear()
    pace = Pace(seconds_per_slot=5.0 / tree.size)  # five seconds a tree

    async def work(batcher: Batcher) -> float:
        first = asyncio.create_task(batcher.score(tree, now() + 60))
        await until(lambda: engine.batches == [1])
        began = now()
        assert await reason_of(batcher.score(tree, began + 1.0)) == "deadline"
        refused_after = now() - began
        engine.gate.set()
        await first
        return refused_after

    assert run(Batcher(engine, pace=pace), work) < 0.05


def test_who_would_wait_for_long_is_not_put_into_words_but_who_was_still_waits(engine: Controlled) -> None:
    tree = engine.read(tree_of(4))
    engine.gate.clear()
    pace = Pace(seconds_per_slot=2.0 / tree.size)  # two seconds a tree

    async def work(batcher: Batcher) -> None:
        waiting = batcher.put([tree], now() + 60)
        await until(lambda: engine.batches == [1])
        batcher.admit(now() + 3)  # nobody else waits
        waiting += batcher.put([tree], now() + 3.9)  # it is in words already, and may just be in time
        batcher.admit(now() + 9)
        with pytest.raises(DegradedError) as refused:
            batcher.admit(now() + 7)  # behind both, for four seconds
        batcher.admit(now() + 3, flow="another")  # of which nobody waits
        engine.gate.set()
        await asyncio.gather(*map(asyncio.wrap_future, waiting))
        assert refused.value.reason == "capacity"

    run(Batcher(engine, pace=pace), work)


def test_an_idle_engine_is_tried_however_slow_it_was_before(engine: Controlled) -> None:
    tree = engine.read(tree_of(80))
    pace = Pace(seconds_per_slot=1000.0)

    async def work(batcher: Batcher) -> None:
        for _ in range(60):
            await batcher.score(tree, now() + 10)

    run(Batcher(engine, pace=pace), work)
    assert len(engine.batches) == 60
    assert pace.seconds_per_slot < 1.0, "the pace is learned anew"


def test_a_forward_that_hangs_is_not_waited_for(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    engine.gate.clear()

    async def work(batcher: Batcher) -> None:
        first = asyncio.create_task(batcher.score(tree, now() + 10))
        await until(lambda: engine.batches == [1])
        await asyncio.sleep(0.3)
        began = now()
        assert await reason_of(batcher.score(tree, began + 0.1)) == "deadline"
        assert now() - began < 0.05, "late by 0.3 s already, it is not expected within 0.1 s"
        engine.gate.set()
        await first

    run(Batcher(engine), work)


@pytest.mark.parametrize(
    ("error", "reason"), [(RuntimeError("out of order"), "engine"), (CapacityError("too long"), "capacity")]
)
def test_a_failing_forward_degrades_its_own_requests_only(engine: Controlled, error: Exception, reason: str) -> None:
    tree = engine.read(tree_of(1))

    async def work(batcher: Batcher) -> None:
        engine.error = error
        reasons = await asyncio.gather(*(reason_of(batcher.score(tree, now() + 10)) for _ in range(3)))
        assert reasons == [reason] * 3
        engine.error = None
        assert (await batcher.score(tree, now() + 10)).scores.logp

    run(Batcher(engine), work)


def test_scores_that_are_not_finite_degrade_their_own_tree_only(engine: Controlled) -> None:
    tree = engine.read(tree_of(2))
    engine.spoiled = True  # the first of each batch

    async def work(batcher: Batcher) -> None:
        spoiled, sound = await asyncio.gather(
            reason_of(batcher.score(tree, now() + 5)), batcher.score(tree, now() + 10)
        )
        assert spoiled == "engine"
        assert np.isfinite(sound.scores.table()).all()

    run(Batcher(engine, Limits(gather_s=0.02)), work)


def test_an_engine_that_answers_too_few_trees_has_failed(engine: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = engine.read(tree_of(1))
    monkeypatch.setattr(engine, "score", lambda _: [])
    assert run(Batcher(engine), lambda batcher: reason_of(batcher.score(tree, now() + 10))) == "engine"


def test_an_engine_that_answers_too_few_leaves_has_failed(engine: Controlled, monkeypatch: pytest.MonkeyPatch) -> None:
    tree = engine.read(tree_of(3))
    few = engine.engine.score([tree])[0].logp[:2]
    monkeypatch.setattr(engine, "score", lambda _: [LeafScores(few, np.full(len(few), np.nan))])
    assert run(Batcher(engine), lambda batcher: reason_of(batcher.score(tree, now() + 10))) == "engine"


def test_a_tree_larger_than_a_batch_is_one_by_itself(engine: Controlled) -> None:
    tree, small = engine.read(tree_of(4)), engine.read(tree_of(1))

    async def work(batcher: Batcher) -> list[Scored]:
        return await asyncio.gather(*(batcher.score(each, now() + 10) for each in (small, tree, small)))

    scored = run(Batcher(engine, Limits(batch_slots=tree.size - 1, gather_s=0.02)), work)
    assert [len(each.scores.logp) for each in scored] == [1, 4, 1]
    assert sorted(engine.batches) == [1, 2]


def test_a_full_queue_is_over_capacity_and_empties_again(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    engine.gate.clear()

    async def work(batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.score(tree, now() + 10))
        await until(lambda: engine.batches == [1])
        waiting = [asyncio.create_task(batcher.score(tree, now() + 10)) for _ in range(3)]
        await until(lambda: batcher.waiting == 3)
        assert await reason_of(batcher.score(tree, now() + 10)) == "capacity"
        engine.gate.set()
        await asyncio.gather(running, *waiting)
        assert (await batcher.score(tree, now() + 10)).scores.logp

    run(Batcher(engine, Limits(queue_slots=3 * tree.size)), work)


def test_a_caller_that_goes_away_leaves_nothing_behind(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    engine.gate.clear()

    async def work(batcher: Batcher) -> None:
        running = asyncio.create_task(batcher.score(tree, now() + 10))
        await until(lambda: engine.batches == [1])
        waiting = [asyncio.create_task(batcher.score(tree, now() + 10)) for _ in range(50)]
        await until(lambda: batcher.waiting == 50)
        for task in (running, *waiting):
            task.cancel()
        await asyncio.gather(running, *waiting, return_exceptions=True)
        assert batcher.waiting == 0
        engine.gate.set()
        assert (await batcher.score(tree, now() + 10)).scores.logp

    run(Batcher(engine, Limits(queue_slots=60 * tree.size)), work)
    assert engine.batches == [1, 1], "none of the cancelled was scored"


def test_many_callers_that_come_and_go_at_random(engine: Controlled) -> None:
    trees = [engine.read(tree_of(n)) for n in (1, 3, 9)]
    rng = np.random.default_rng(0)
    outcomes: list[str] = []

    async def caller(batcher: Batcher, tree: TokenTree, start_s: float, patience_s: float, deadline_s: float) -> None:
        await asyncio.sleep(start_s)
        try:
            async with asyncio.timeout(patience_s):
                scored = await batcher.score(tree, now() + deadline_s)
            assert len(scored.scores.logp) == len(tree.nodes) - 1
            outcomes.append("scored")
        except TimeoutError:
            outcomes.append("gone")
        except DegradedError as error:
            outcomes.append(error.reason)

    async def work(batcher: Batcher) -> None:
        numbers = rng.uniform([0, 0.001, 0.001], [0.5, 0.2, 0.2], size=(300, 3))
        await asyncio.gather(*(caller(batcher, trees[n % 3], *row) for n, row in enumerate(numbers)))
        assert batcher.waiting == 0
        assert batcher.queued_slots == 0

    run(Batcher(engine), work)
    assert len(outcomes) == 300
    assert set(outcomes) <= {"scored", "gone", "deadline"}
    assert outcomes.count("scored") > 10


def test_leaving_degrades_what_still_waits(engine: Controlled) -> None:
    tree = engine.read(tree_of(1))
    engine.gate.clear()

    async def main() -> list[str]:
        batcher = Batcher(engine)
        with batcher.running():
            running = asyncio.create_task(reason_of(batcher.score(tree, now() + 10)))
            await until(lambda: engine.batches == [1])
            waiting = asyncio.create_task(reason_of(batcher.score(tree, now() + 10)))
            await until(lambda: batcher.waiting == 1)
        return await asyncio.gather(running, waiting)

    assert asyncio.run(main()) == ["engine", "engine"]


def test_pace_follows_the_engine_and_ignores_tiny_batches() -> None:
    pace = Pace()
    assert pace.expects(1000) == 0.0
    pace.learn(10, 5.0)
    assert pace.expects(1000) == 0.0
    pace.learn(1000, 1.0)
    assert pace.expects(1000) == pytest.approx(1.0)
    for _ in range(20):
        pace.learn(1000, 2.0)
    assert pace.expects(500) == pytest.approx(1.0, rel=0.01)
    pace.learn(10, 5.0)
    assert pace.expects(500) == pytest.approx(1.0, rel=0.01)


def test_after_a_stall_small_batches_tell_that_it_is_over(engine: Controlled) -> None:
    """One forward hung. Beside another flow there is time for one small tree at once, until the pace is known again."""
    tree = engine.read(tree_of(1))
    assert tree.size < MEASURED_SLOTS

    async def work(batcher: Batcher) -> list[int]:
        batcher.pace.learn(MEASURED_SLOTS, 600.0)
        await batcher.score(tree, now() + 3600, flow="other")
        for _ in range(30):
            await batcher.score(tree, now() + 3600, flow="little")
        before = len(engine.batches)
        engine.gate.clear()
        first = batcher.put([tree], now() + 3600, "other")
        await until(lambda: len(engine.batches) > before)
        waiting = batcher.put([tree] * 4, now() + 3600, "little")
        engine.gate.set()
        await asyncio.gather(*map(asyncio.wrap_future, [*first, *waiting]))
        return engine.batches[before:]

    assert run(Batcher(engine, Limits(gather_s=0.0)), work) == [1, 4]


def test_a_tree_that_fails_takes_its_siblings_off_the_queue(engine: Controlled) -> None:
    engine.error = RuntimeError("broken")
    tree = engine.read(tree_of(3))

    async def work(batcher: Batcher) -> tuple[int, int]:
        with pytest.raises(DegradedError):
            await batcher.score(tree, now() + 10, [tree] * 30)
        await asyncio.sleep(0.05)
        return batcher.waiting, batcher.queued_slots

    assert run(Batcher(engine, Limits(batch_slots=tree.size, gather_s=0.02)), work) == (0, 0)


def test_trees_that_ask_back_are_scored_with_the_first(engine: Controlled) -> None:
    trees = [engine.read(tree_of(n, f"film {n}")) for n in (3, 1, 2)]
    alone = [engine.engine.score([tree])[0] for tree in trees]

    async def work(batcher: Batcher) -> Scored:
        return await batcher.score(trees[0], now() + 10, trees[1:])

    scored = run(Batcher(engine, Limits(gather_s=0.02)), work)
    for found, right in zip([scored.scores, *scored.back], alone, strict=True):
        assert np.allclose(np.concatenate(found.logp), np.concatenate(right.logp), atol=1e-5)


# ---------------------------------------------------------------- flows
