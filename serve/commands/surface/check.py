"""`prismrank surface check`: what is wrong in surface files, and what is right and yet without effect."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console
from rich.text import Text

from prompts.errors import SpecError, UnknownError
from serve.commands.parts import (
    SHIPPED_MODEL,
    AdapterFolder,
    SurfaceFolder,
    model_folder,
    open_engine,
    open_ledger,
    open_registry,
    steps,
)

if TYPE_CHECKING:
    from foundation.tokenizer import TextEncoder
    from serve.commands.surface.trials import Tried
    from surfaces.registry import Registry
    from surfaces.spec import SurfaceSpec
    from surfaces.spec_file import SpecFile

NO_MODEL = "none"
DOUBTFUL = 1


def check(
    files: Annotated[list[Path], typer.Argument(help="Surface or trunk files; later ones may use earlier ones.")],
    surfaces: SurfaceFolder = None,
    model: Annotated[
        str, typer.Option(metavar="DIR", help="The model that will rank: a folder, the name of a shipped one, or none.")
    ] = SHIPPED_MODEL,
    adapters: AdapterFolder = None,
    ledger: Annotated[
        str | None, typer.Option("--ledger", metavar="URL", help="Try the surfaces out on this ledger.")
    ] = None,
    member: Annotated[
        list[str] | None, typer.Option(metavar="ID", help="Try them for this member; may be given several times.")
    ] = None,
    members: Annotated[int, typer.Option(min=1, max=100, help="Without --member, draw so many.")] = 5,
    seed: Annotated[int, typer.Option(help="What is drawn is drawn by this.")] = 0,
    strict: Annotated[bool, typer.Option("--strict", help="Exit with 1 when there are warnings.")] = False,
) -> None:
    """Check surface files: keys, templates, names, and answers that the model can tell apart.

    With --ledger, each surface ranks for a few real members. What has no effect, names nothing that the ledger has, or
    takes too long is told with line and column, and with what to do.
    """
    if member and ledger is None:
        raise SpecError("--member needs --ledger: a member is tried out on the ledger that knows them")
    registry, read = _read(files, open_registry(surfaces), model)
    if ledger is None:
        tried = [_alone(file) for file in read]
    else:
        tried = _beside(ledger, registry, read, model, adapters, member or (), members, seed)
    warned = [_tell(file, registry, each) for file, each in zip(read, tried, strict=True)]
    if strict and any(warned):
        raise typer.Exit(DOUBTFUL)


def _read(paths: Sequence[Path], registry: Registry, model: str) -> tuple[Registry, list[SpecFile]]:
    """A registry with the files, one after the other. Raises SpecError."""
    from foundation.tokenizer import TextEncoder
    from surfaces.registry import read_file
    from surfaces.spec import SurfaceSpec

    files, encoder = [], None
    for path in paths:
        file = read_file(path)
        registry = registry.plus(file)
        if isinstance(file.spec, SurfaceSpec) and model != NO_MODEL:
            encoder = encoder or TextEncoder.load(model_folder(model))
            _check_answers(file.spec, path, encoder)
        files.append(file)
    return registry, files


def _check_answers(spec: SurfaceSpec, path: Path, encoder: TextEncoder) -> None:
    from surfaces.spec import check_answers

    try:
        check_answers(spec, lambda word: encoder.encode(f" {word}"))
    except SpecError as error:
        raise SpecError(f"{path}: {error}") from None


def _alone(file: SpecFile) -> Tried | None:
    """What can be said without a ledger; nothing of a trunk."""
    from serve.commands.surface.trials import Tried
    from surfaces.authoring.advice import in_order
    from surfaces.authoring.advice_file import of_file
    from surfaces.spec import SurfaceSpec

    return Tried(in_order(of_file(file.spec), file)) if isinstance(file.spec, SurfaceSpec) else None


def _beside(
    url: str,
    registry: Registry,
    files: Sequence[SpecFile],
    model: str,
    adapters: Path | None,
    asked: Sequence[str],
    draw: int,
    seed: int,
) -> list[Tried | None]:
    """What can be said beside a ledger."""
    from serve.commands.surface.trials import Bench
    from surfaces.spec import SurfaceSpec

    with open_ledger(url) as ledger, steps("loading the model") as step:
        missing = ledger.unknown_members(asked)
        if missing:
            raise UnknownError(f"--member: the ledger knows no member '{missing[0][:80]}'")
        engine = None if model == NO_MODEL else open_engine(model)
        bench = Bench(ledger, registry, engine, asked, draw, seed, adapters)
        found: list[Tried | None] = []
        for file in files:
            step(f"trying out '{file.name}'")
            found.append(bench.tried(file, file.spec) if isinstance(file.spec, SurfaceSpec) else None)
        return found


def _tell(file: SpecFile, registry: Registry, tried: Tried | None) -> bool:
    """Shows what was found; returns whether there are warnings."""
    from serve.commands.surface.trials import summary
    from surfaces.spec import SurfaceSpec

    console = Console(markup=False, highlight=False)
    version = registry.declared(file.name).version if isinstance(file.spec, SurfaceSpec) else file.spec.version
    console.print(Text(f"{file.document.where}: right (version {version})"), soft_wrap=True)
    if tried is None:
        return False
    if tried.trials and isinstance(file.spec, SurfaceSpec):
        console.print(summary(file.spec, tried.trials))
    for advice in tried.advice:
        console.print(Text(advice.line(file), style="cyan" if advice.note else "yellow"), soft_wrap=True)
    return any(not advice.note for advice in tried.advice)
