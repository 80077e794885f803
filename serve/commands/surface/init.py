"""`prismrank surface init`: a surface file out of a ledger."""

from __future__ import annotations

import json
import shlex
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Console

from prompts.errors import SpecError
from prompts.suggest import suggest
from serve.commands.parts import SHIPPED_MODEL, LedgerUrl, ModelFolder, model_folder, open_ledger, steps

if TYPE_CHECKING:
    from surfaces.authoring.draft import Wishes
    from surfaces.authoring.heads import Encode
    from surfaces.authoring.survey import Survey

SHOWN = 12
"""Kinds of items that a message lists."""


def init(
    ledger: LedgerUrl,
    name: Annotated[str | None, typer.Argument(help="What the surface will be called, like jobs.")] = None,
    kind: Annotated[str | None, typer.Option(metavar="KIND", help="The kind of items to rank.")] = None,
    out: Annotated[
        Path | None, typer.Option(metavar="PATH", help="A folder, or a file that ends in .yaml; default: NAME.yaml.")
    ] = None,
    heads: Annotated[
        str | None, typer.Option(metavar="ACTIONS", help="What to predict: like apply,save,-dismiss; - counts against.")
    ] = None,
    description: Annotated[str | None, typer.Option(metavar="TEXT", help="One line about the surface.")] = None,
    yes: Annotated[
        bool, typer.Option("--yes", "--no-input", "-y", help="Ask nothing: take the suggestions for what is missing.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Write over a file that is there.")] = False,
    model: ModelFolder = SHIPPED_MODEL,
) -> None:
    """Write a surface file that fits a ledger: it passes `surface check`, ranks at once, and explains itself.

    On a terminal it asks for what is missing.
    """
    from surfaces.authoring.draft import check_name, draft
    from surfaces.authoring.survey import draw_members, kinds_of, survey

    asks = not yes and sys.stdin.isatty()
    with open_ledger(ledger) as opened:
        chosen = _kind(kind, kinds_of(opened), asks=asks, yes=yes)
        called = check_name(name or _name(chosen, asks=asks, yes=yes))
        path = _path(out, called, force=force)
        with steps(f"reading what the ledger holds of the kind '{chosen}'") as step:
            found, members = survey(opened, chosen), draw_members(opened, chosen, 1, seed=0)
            step("reading the model's words")
            encode = _encoder(model)
    wishes = _wishes(called, description, heads, found, asks=asks)
    _write(path, draft(wishes, found, encode))
    _tell(path, found, ledger, [called, *members])


def _kind(kind: str | None, kinds: Mapping[str, int], *, asks: bool, yes: bool) -> str:
    """The kind of items: as asked for, the only one, or the most frequent one."""
    from surfaces.authoring.draft import check_name

    if not kinds:
        raise SpecError("the ledger holds no items yet; bring some with: prismrank import FOLDER --ledger URL")
    listed = ", ".join(f"{name} ({count:,})" for name, count in list(kinds.items())[:SHOWN])
    if kind is None:
        most = next(iter(kinds))
        if asks and len(kinds) > 1:
            kind = _ask(f"Which kind of items? {listed}", most, lambda said: _known(said, kinds))
        elif yes or len(kinds) == 1:
            kind = most
        else:
            raise SpecError(f"--kind is missing; the ledger holds {listed}; or take the first with --yes")
    return check_name(_known(kind, kinds), "a kind of items that is ranked")


def _known(kind: str, kinds: Mapping[str, int]) -> str:
    if kind not in kinds:
        raise SpecError(f"--kind: the ledger holds no items of the kind '{kind[:80]}'{suggest(kind, kinds)}")
    return kind


def _ask(question: str, suggested: str, check: Callable[[str], object]) -> str:
    """What is answered on the terminal; asked again until `check` takes it."""

    def taken(answer: str) -> str:
        try:
            check(answer)
        except SpecError as error:
            raise typer.BadParameter(str(error).removeprefix("--kind: ").removeprefix("--heads: ")) from None
        return answer

    return str(typer.prompt(question, default=suggested, value_proc=taken))


def _name(kind: str, *, asks: bool, yes: bool) -> str:
    from surfaces.authoring.draft import check_name, plural

    suggested = plural(kind)
    if asks:
        return _ask("What is the surface called?", suggested, check_name)
    if yes:
        return suggested
    raise SpecError(f"NAME is missing; write it behind init, like: surface init {suggested}; or take that with --yes")


def _wishes(name: str, description: str | None, heads: str | None, found: Survey, *, asks: bool) -> Wishes:
    from surfaces.authoring.draft import Wishes, describe
    from surfaces.authoring.heads import asked_heads, default_heads

    if heads is None and asks:
        known = default_heads(found.actions)
        suggested = ",".join(f"{'-' if weight < 0 else ''}{action}" for action, weight in known.items())
        question = "What is predicted? Actions; one with a - counts against"
        heads = _ask(question, suggested, lambda said: asked_heads(said, found.actions))
    weights = default_heads(found.actions) if heads is None else asked_heads(heads, found.actions)
    said = describe(found.kind, weights)
    if description is None and asks:
        description = _ask("One line about it", said, str)
    return Wishes(name, _one_line(description) or said, weights)


def _one_line(text: str | None) -> str:
    from prompts.values import clean_text

    return clean_text(text or "")


def _path(out: Path | None, name: str, *, force: bool) -> Path:
    """Where the file goes. Raises SpecError for one that is there already."""
    if out is not None and out.suffix in {".yaml", ".yml"} and not out.is_dir():
        path = out
    else:
        path = (out or Path()) / f"{name}.yaml"
    if path.exists() and not force:
        raise SpecError(f"{path} is there already; give --out another place, or write over it with --force")
    return path


def _encoder(model: str) -> Encode:
    from foundation.tokenizer import TextEncoder

    encoder = TextEncoder.load(model_folder(model))
    return lambda word: encoder.encode(f" {word}")


def _write(path: Path, text: str) -> None:
    """The file, and beside it the schema by which editors complete it."""
    from surfaces.spec_schema import SURFACE_FILE, surface_schema

    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    schema = path.parent / SURFACE_FILE
    schema.write_text(f"{json.dumps(surface_schema(), indent=2)}\n", encoding="utf-8")


def _tell(path: Path, found: Survey, url: str, names: Sequence[str]) -> None:
    """What was written, and what to do next; `names` are the surface, and a member if there is one."""
    from surfaces.registry import Registry

    console = Console(soft_wrap=True, markup=False, highlight=False)
    console.print(f"{path}: ranks {found.count:,} items of the kind '{found.kind}', from {found.acts:,} events")
    if names[0] in Registry.shipped().names():
        console.print(
            f"A surface '{names[0]}' comes with prismrank; from a folder that is served, yours takes its place."
        )
    ledger = f"--ledger {shlex.quote(url) if url.startswith('sqlite') else 'URL'}"
    member = shlex.quote(names[1]) if len(names) > 1 else "ID"
    file = shlex.quote(str(path))
    console.print(f"  prismrank surface check {file} {ledger}")
    console.print(f"  prismrank surface preview {file} {ledger} --member {member}")
    console.print(f"  prismrank serve {ledger} --surfaces {shlex.quote(str(path.parent))}")
