"""New model folders: each is made beside its place and moved there whole, so that one which exists is complete."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import cast

import torch
from transformers import AutoModelForCausalLM, PreTrainedConfig, PreTrainedModel

from prompts.errors import CheckpointError


@contextmanager
def fresh_folder(out: Path) -> Iterator[Path]:
    """A path to make a folder at; it takes `out`'s place when the block ends well, and is gone when it does not.

    Raises CheckpointError where `out` is there already.
    """
    if out.exists():
        raise CheckpointError(f"{out} is there already: remove it, or name another folder")
    out.parent.mkdir(parents=True, exist_ok=True)
    with TemporaryDirectory(dir=out.parent, prefix=f".{out.name}-") as scratch:
        fresh = Path(scratch, out.name)
        yield fresh
        fresh.rename(out)


def assemble(config: PreTrainedConfig, state: Mapping[str, torch.Tensor]) -> PreTrainedModel:
    """A decoder around these tensors, without a copy and without drawing random weights first.

    It is there to be saved: its rotary tables stay on the meta device. Raises CheckpointError where a tensor is
    missing, has another shape, or is one too many.
    """
    with torch.device("meta"):
        lm = cast(PreTrainedModel, AutoModelForCausalLM.from_config(config))  # type: ignore[no-untyped-call]
    try:
        unknown = lm.load_state_dict(state, strict=False, assign=True).unexpected_keys
    except RuntimeError as error:
        raise CheckpointError(f"weights do not fit the architecture: {str(error).splitlines()[-1].strip()}") from None
    lm.tie_weights()
    absent = [name for name, parameter in lm.named_parameters() if parameter.is_meta]
    if unknown or absent:
        raise CheckpointError(f"weights do not fit the architecture, such as {[*unknown, *absent][0]}")
    return lm
