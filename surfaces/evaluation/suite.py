"""`prismrank evaluate`, from what is asked for to a report: split, tuning, leak check, rankings, coverage."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import TypedDict, get_args

import polars as pl

from foundation.bench.machine import machine
from foundation.engine.base import Engine
from prompts.errors import ConfigError, LedgerError, PrismrankError
from prompts.suggest import suggest
from prompts.verbalize import TrunkForm
from surfaces.adapters import Adapters
from surfaces.calibrated import CalibratedSurface, Calibrations
from surfaces.evaluation import fusion, leaks, lists, protocols
from surfaces.evaluation.coverage import Coverage, coverage
from surfaces.evaluation.foundation import FoundationMethod
from surfaces.evaluation.method import FromFile, FromRetrieval, FromSource, Method, Random, Remembered, Visits
from surfaces.evaluation.protocols import Protocol, Split
from surfaces.evaluation.recipes import recipes
from surfaces.evaluation.report import LATE, MODELS, RETRIEVAL, SOURCES_ALONE, Report
from surfaces.evaluation.results import code_version, kept, key_of
from surfaces.evaluation.run import Keeping, rank
from surfaces.evaluation.tuning import BUDGET, MEMBERS, Tuned, tune
from surfaces.ledger.store import Ledger
from surfaces.registry import Registry
from surfaces.sources.base import Materials
from surfaces.sources.fit import evidence_only, fit_source
from surfaces.sources.merge import Retrieval
from surfaces.spec import SurfaceSpec

PROTOCOLS: tuple[Protocol, ...] = get_args(Protocol)
ALL = "all"
FILE = ".parquet"
TRIED = 2
"""So many cases are ranked to foretell what all of them take."""

Weights = Mapping[str, Mapping[str, float]]
"""Of each fusion, by part."""
Step = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""
Tell = Callable[[str], None]
"""Called with a line that a reader should see before the work starts."""


class Who(TypedDict):
    """How members are drawn."""

    members: int | None
    seed: int


@dataclass(frozen=True, slots=True)
class Asked:
    """What an evaluation is asked to be. `against` are names of methods and ranking files (parquet)."""

    surface: str
    protocol: Protocol = "leave-one-out"
    against: tuple[str, ...] = ("popular", "co_visitation")
    lists: Path | None = None
    members: int | None = None
    candidates: int | None = None
    history: int = 0
    seed: int = 0
    budget: int = BUDGET


def names(*, model: bool) -> list[str]:
    """Every method that there is, the model's own ones where there is a model."""
    return ["random", *recipes(), RETRIEVAL, SOURCES_ALONE, *(MODELS if model else ())]


@dataclass(frozen=True)
class Suite:
    """One evaluation, ready to run. Without an engine the methods that need a model are not to be had.

    `calibrations` are those of the engine's weights, `adapters` what the surface may name.
    """

    asked: Asked
    registry: Registry
    ledger: Ledger
    engine: Engine | None = None
    folder: Path | None = None
    step: Step = lambda *_: None
    tell: Tell = lambda _: None
    calibrations: Calibrations | None = None
    adapters: Adapters | None = None

    @cached_property
    def spec(self) -> SurfaceSpec:
        """The surface. Raises UnknownError."""
        return self.registry.surface(self.asked.surface)

    @cached_property
    def split(self) -> Split:
        """What is held out. Raises ConfigError, LedgerError."""
        asked, ledger, spec = self.asked, self.ledger, self.spec
        who: Who = {"members": asked.members, "seed": asked.seed}
        if asked.protocol == "lists":
            if asked.candidates is not None or asked.history:
                raise ConfigError("the protocol 'lists' takes lists as they are: leave out --candidates and --history")
            if asked.lists is not None:
                return lists.from_lists(ledger, spec, lists.read_lists(asked.lists), **who)
            return lists.from_impressions(ledger, spec, **who)
        if asked.lists is not None:
            raise ConfigError(f"a list file goes with the protocol 'lists', not with '{asked.protocol}'")
        if asked.protocol == "global-time":
            return protocols.global_time(ledger, spec, history=asked.history, candidates=asked.candidates, **who)
        return protocols.leave_one_out(ledger, spec, history=max(asked.history, 1), candidates=asked.candidates, **who)

    @cached_property
    def validation(self) -> Split:
        """What settings are chosen on: leave-one-out within what may be learned from. Raises LedgerError."""
        most = max(min(MEMBERS, len(self.split.train.member_ids)), 1)
        try:
            return protocols.validation_of(self.split, self.ledger, self.spec, members=most, seed=self.asked.seed)
        except LedgerError as error:
            raise LedgerError(f"no settings can be chosen: in what may be learned from, {error}") from None

    @cached_property
    def _validated(self) -> bool:
        try:
            return bool(self.validation.cases)
        except LedgerError:
            return False

    @cached_property
    def wanted(self) -> list[str]:
        """The methods that are compared, by name, the subject first. Raises ConfigError for a name that is none."""
        known = names(model=self.engine is not None)
        given = list(dict.fromkeys(name for name in self.asked.against if name))
        given = [other for name in given for other in (known if name == ALL else [name])]
        given += [SOURCES_ALONE] if "fused" in given else []
        found = list(dict.fromkeys([*(["foundation"] if self.engine else []), *given]))
        found += [RETRIEVAL] if self.engine and RETRIEVAL not in found else []
        for name in found:
            if name not in known and not name.endswith(FILE):
                why = "; it needs a model" if name in MODELS else f"{suggest(name, known)}"
                raise ConfigError(f"no method is called '{name}'{why}; a ranking file ends with {FILE}")
        called = [Path(name).stem for name in found if name.endswith(FILE)]
        for name in called:
            if name in names(model=True) or called.count(name) > 1:
                raise ConfigError(f"the ranking file '{name}{FILE}' has the name of another method; rename it")
        if not found:
            raise ConfigError("against: there is no model and no other method; name one or more")
        return found

    def run(self) -> Report:
        """Does it all. Raises PrismrankError for what cannot be done, LeakError for what would be no evaluation."""
        if self.adapters:
            self.adapters.load(self.registry.declared(self.asked.surface))
        outside = {name: FromFile(Path(name)) for name in self.wanted if name.endswith(FILE)}
        self._foretell()
        tuned, absent = self._all_tuned()
        wanted = [name for name in self.wanted if name not in absent]
        parts = self._models(self.split)
        weights = {name: self._weights(name) for name in ("fused", SOURCES_ALONE, LATE) if name in wanted}
        methods = [outside.get(name) or self._method(name, tuned, parts, weights) for name in wanted]
        places = leaks.check(self.split, [*parts.values(), *methods], self.ledger)
        leaks.refuse(places)
        results = rank(
            self.split,
            methods,
            self.ledger,
            actions={head.name: frozenset(head.actions) for head in self.spec.heads if head.probability},
            keeping=Keeping(
                self.folder,
                {made.name: self._key(name, tuned, weights) for name, made in zip(wanted, methods, strict=True)},
            ),
            progress=self._stepping("ranking"),
        )
        report = Report(
            self.spec.surface,
            self.split,
            results,
            tuned,
            weights.get("fused", {}),
            self._coverage(),
            places,
            [method.name for method in outside.values()],
            [*self._notes(), *absent.values(), *self._absent(outside.values())],
            self._about(),
        )
        self._save(report)
        return report

    def _stepping(self, what: str) -> Callable[[int, int], None]:
        return lambda done, total: self.step(what, done, total)

    def _foretell(self) -> None:
        """Says what the work is, and how long the model will take for its part: the rest takes minutes."""
        split = self.split
        sizes = [len(split.items(number)) for number in _spread(len(split.cases))]
        mean = sum(sizes) / len(sizes)
        tried = [name for name in self.wanted if name in recipes()]
        self.tell(
            f"{len(split.cases):,} rankings of {mean:,.0f} candidates on average by {len(self.wanted)} methods; "
            f"up to {self.asked.budget} tries each on validation for {', '.join(tried) or 'none'}."
        )
        asked = [name for name in ("foundation", "zero_shot", LATE) if name in self.wanted]
        if self.engine is None or not asked:
            return
        seconds = self._seconds(FoundationMethod(self.spec, self._form, self.ledger, self.engine, split.train))
        total = len(asked) * seconds * len(split.cases)
        if {"fused", LATE} & set(self.wanted):
            total += seconds / mean * fusion.FITTED_ON * min(fusion.AMONG, mean)
        self.tell(f"The model reads {mean / seconds:,.0f} candidates a second: about {_duration(total)} for its part.")

    def _seconds(self, method: Method) -> float:
        """The mean time of a ranking, from a few of them after one that warms up."""
        visits, split = Visits(self.ledger), self.split
        spent = []
        for number in [0, *_spread(len(split.cases))]:
            visit, items = visits.of(split.cases[number]), split.items(number)
            start = time.perf_counter()
            method.judge(visit, items)
            spent.append(time.perf_counter() - start)
        return sum(spent[1:]) / len(spent[1:])

    def _all_tuned(self) -> tuple[dict[str, Tuned], dict[str, str]]:
        """The baselines' settings, and why some of them are not to be had, where all that there are were asked for."""
        tuned, absent = dict[str, Tuned](), dict[str, str]()
        for name in [name for name in self.wanted if name in recipes()]:
            try:
                tuned[name] = self._tuned(name)
            except PrismrankError as error:
                if name in self.asked.against or ALL not in self.asked.against:
                    raise
                absent[name] = f"{name} is left out: {error}"
        return tuned, absent

    def _tuned(self, name: str) -> Tuned:
        """The settings of a baseline, found on validation or kept from before; one without any needs no validation."""
        if not recipes()[name].space and not self._validated:
            return Tuned({}, None, ())
        key = key_of(self.validation.digest, self.asked.budget, self.asked.seed, self._basis)
        path = self.folder / "tuned" / f"{name}-{key}.json" if self.folder else None
        materials = Materials(self.spec, self.validation.train, self.ledger, self.engine)

        def find() -> Tuned:
            return tune(
                recipes()[name], materials, self.validation, budget=self.asked.budget, seed=self.asked.seed,
                progress=self._stepping(f"tuning {name}"),
            )  # fmt: skip

        return Tuned.read(kept(path, key, lambda: asdict(find())))

    def _models(self, split: Split) -> dict[str, Method]:
        """What the model alone gives, each remembered, for the fusion to build on."""
        if self.engine is None:
            return {}
        texts_alone = {"zero_shot", LATE} & set(self.wanted)
        asked = {"foundation": True, **({"zero_shot": False} if texts_alone else {})}
        return {
            name: Remembered(
                FoundationMethod(
                    self.spec,
                    self._form,
                    self.ledger,
                    self.engine,
                    split.train,
                    evidence=evidence,
                    calibration=self._calibration,
                )
            )
            for name, evidence in asked.items()
        }

    def _parts(self, name: str, split: Split, models: Mapping[str, Method]) -> list[Method]:
        """What is fused: the model where it is asked, and the surface's sources as it sets them, or its evidence's."""
        if name == LATE:
            advisers = evidence_only(Materials(self.spec, split.train, self.ledger, self.engine)).advisers
            said = [FromSource(each.label, each.source, split.train, fitted=True) for each in advisers]
            return [models["zero_shot"], *said]
        retrieval = self._retrieval if split is self.split else self._fitted(split)
        asked = [models["foundation"]] if name in MODELS else []
        return [*asked, *fusion.scoring_sources(retrieval, split.train)]

    def _weights(self, name: str) -> dict[str, float]:
        """The weights of a fusion, with the model or without it, fitted on the validation or kept from before."""
        key = key_of(name, self.validation.digest, self._basis, self._model_version)
        path = self.folder / "tuned" / f"{name}-{key}.json" if self.folder else None

        def find() -> fusion.Fusion:
            split = replace(
                self.validation,
                cases=protocols.drawn(self.validation.cases, fusion.FITTED_ON, self.asked.seed),
                candidates=fusion.AMONG,
            )
            parts = self._parts(name, split, self._models(split) if name in MODELS else {})
            return fusion.fit(parts, split, self.ledger, self._stepping(f"fitting {name}"))

        return dict(kept(path, key, lambda: find()._asdict())["weights"])

    def _method(self, name: str, tuned: Mapping[str, Tuned], models: Mapping[str, Method], weights: Weights) -> Method:
        """A method that is ready to rank."""
        if name in models:
            return models[name]
        if name in weights:
            return fusion.Fused(name, self._parts(name, self.split, models), weights[name])
        if name == "random":
            return Random(self.asked.seed)
        if name == RETRIEVAL:
            return FromRetrieval(self._retrieval, self.spec.fallback.order, self.split.train)
        self.step(f"fitting {name}", 0, 1)
        materials = Materials(self.spec, self.split.train, self.ledger, self.engine)
        return FromSource(name, recipes()[name].make(materials, tuned[name].settings), self.split.train)

    @cached_property
    def _retrieval(self) -> Retrieval:
        return self._fitted(self.split)

    def _fitted(self, split: Split) -> Retrieval:
        """The surface's sources as it sets them, fitted to what may be learned from; no filter is asked."""
        spec = self.spec.model_copy(update={"evidence": ()})
        materials = Materials(spec, split.train, self.ledger, self.engine)
        able = (kind for kind in spec.sources if kind.called not in self._unable)
        return replace(evidence_only(materials), sources=tuple(fit_source(kind, materials) for kind in able))

    @cached_property
    def _unable(self) -> dict[str, str]:
        """The surface's sources that have no part here, by name, and why."""
        why = {"sql": "it reads the ledger as it is now, what is held out among it"}
        if self.engine is None:
            why["embedding"] = "it needs a model"
        return {kind.called: why[kind.type] for kind in self.spec.sources if kind.type in why}

    def _notes(self) -> Iterator[str]:
        """What a reader must know of this evaluation."""
        yield from self.split.notes
        for name, why in self._unable.items():
            yield f"the surface's source '{name}' has no part in this: {why}"
        if self.ledger.note:
            yield self.ledger.note

    def _coverage(self) -> Coverage:
        return coverage(self.split, self._retrieval, self.ledger, progress=self._stepping("coverage"))

    @cached_property
    def _calibration(self) -> CalibratedSurface | None:
        """What a server would make of the model's answers, too."""
        return self.calibrations.of(self.spec, self._surface_version) if self.calibrations else None

    @property
    def _form(self) -> TrunkForm:
        return self.registry.trunk(self.spec.trunk)

    @cached_property
    def _surface_version(self) -> str:
        return self.registry.declared(self.spec.surface).version

    @property
    def _model_version(self) -> str:
        """The weights that rank, those of an adapter among them."""
        if self.engine is None or self.adapters is None or self.spec.adapter is None:
            return self.engine.model_version if self.engine else "none"
        return f"{self.engine.model_version}+{self.spec.adapter}@{self.adapters.version(self.spec.adapter)}"

    @cached_property
    def _basis(self) -> str:
        """What every result depends on, beside the split: the programme, the surface, all texts of the ledger."""
        told = hashlib.sha256(f"{code_version()} {self._surface_version} {self._calibration!r}".encode())
        for row in (*self.ledger.all_items(), *self.ledger.all_members()):
            told.update(json.dumps(row, sort_keys=True).encode())
        return told.hexdigest()[:16]

    def _key(self, name: str, tuned: Mapping[str, Tuned], weights: Weights) -> str:
        """What a method's results depend on beside the split."""
        own: object = tuned[name].settings if name in tuned else weights.get(name)
        if name.endswith(FILE):
            own = hashlib.sha256(Path(name).read_bytes()).hexdigest()
        return key_of(name, own, self._basis, self._model_version, self.asked.seed)

    def _absent(self, outside: Iterable[FromFile]) -> Iterator[str]:
        for method in outside:
            missing = method.absent(self.split.cases)
            if missing:
                yield f"{method.name} says nothing of {missing} of the {len(self.split.cases)} rankings"
            yield f"what {method.name} learned from cannot be checked here"

    def _about(self) -> dict[str, object]:
        note = self.ledger.note
        return {
            **({"note": note} if note else {}),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "model": self._model_version,
            "surface_version": self._surface_version,
            "calibrated": self._calibration is not None,
            "budget": self.asked.budget,
            "machine": machine(),
        }

    def _save(self, report: Report) -> None:
        """The split beside the results: what was asked as a list file, and what may be learned from."""
        if self.folder is None:
            return
        self.folder.mkdir(parents=True, exist_ok=True)
        asked_table(self.split).write_parquet(self.folder / "split.parquet")
        train_table(self.split).write_parquet(self.folder / "train.parquet")
        (self.folder / "report.json").write_text(json.dumps(report.told, indent=1), encoding="utf-8")


def asked_table(split: Split) -> pl.DataFrame:
    """The split's cases as a list file: every candidate where lists are given or drawn, else the wanted items alone."""
    rows = [
        (case.member_id, item_id, case.labels.get(item_id, 0.0), case.time)
        for number, case in enumerate(split.cases)
        for item_id in (split.items(number) if case.listed is not None or split.candidates else case.wanted)
    ]
    names = {"member_id": pl.String, "item_id": pl.String, "label": pl.Float64, "timestamp": pl.Float64}
    return pl.DataFrame(rows, schema=names, orient="row")


def train_table(split: Split) -> pl.DataFrame:
    """What may be learned from: `member_id, item_id, timestamp`, every member's events in the order of time."""
    data = split.train
    rows = [
        (member_id, data.item_ids[item], float(at))
        for member_id, sequence, times in zip(data.member_ids, data.sequences, data.times, strict=True)
        for item, at in zip(sequence, times, strict=True)
    ]
    return pl.DataFrame(
        rows, schema={"member_id": pl.String, "item_id": pl.String, "timestamp": pl.Float64}, orient="row"
    )


def _spread(count: int) -> list[int]:
    """A few numbers below `count`, the last one among them."""
    return sorted({(count - 1) * (place + 1) // TRIED for place in range(TRIED)})


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 100 else f"{seconds / 60:.0f} min"
