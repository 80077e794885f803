"""Adapters as files, and new ones to train: peft makes, writes and reads the same folders.

A folder holds adapter_config.json and adapter_model.safetensors. An adapter acts on stems and leaves alone: a trunk is
computed by the base, so one that is remembered serves every adapter (see `foundation.lowrank`).
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import torch
from pydantic import BaseModel, ConfigDict, Field, ValidationError
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from foundation.config import explain
from foundation.lowrank import TARGETS, Adapter, LowRank, Target
from prompts.errors import CheckpointError, ConfigError

if TYPE_CHECKING:
    from foundation.model import Ranker

CONFIG_FILE, WEIGHTS_FILE = "adapter_config.json", "adapter_model.safetensors"


class Settings(BaseModel):
    """What of adapter_config.json decides what an adapter computes, and the `revision` of the model it belongs to."""

    model_config = ConfigDict(extra="allow", frozen=True)

    peft_type: Literal["LORA"] = "LORA"
    r: int = Field(ge=1)
    lora_alpha: float = Field(gt=0, allow_inf_nan=False)
    target_modules: tuple[Target, ...] = Field(min_length=1)
    use_rslora: bool = False
    bias: Literal["none"] = "none"
    revision: str | None = None

    @property
    def scale(self) -> float:
        """alpha / rank, or alpha / sqrt(rank) (Kalajdzievski 2023)."""
        return self.lora_alpha / (math.sqrt(self.r) if self.use_rslora else self.r)

    def unknown_option(self) -> str | None:
        """The first that would change what is computed in a way that is not done here."""
        options = dict(self.model_extra or {})
        if options.pop("init_lora_weights", True) not in (True, False, None, "gaussian"):
            return "init_lora_weights"  # others move the base's weights
        return next((name for name, value in options.items() if value and name not in WITHOUT_EFFECT), None)


WITHOUT_EFFECT = {
    "auto_mapping", "base_model_name_or_path", "inference_mode", "layers_pattern", "lora_dropout", "megatron_core",
    "peft_version", "qalora_group_size", "task_type",
}  # fmt: skip
"""Options that decide nothing once an adapter is trained, or nothing by themselves."""


def attach(
    ranker: Ranker, name: str, rank: int = 8, alpha: float = 16.0, targets: Sequence[Target] = TARGETS
) -> Adapter:
    """A new adapter of the ranker, to be trained; the ranker's own weights are frozen.

    peft makes it, with torch's random numbers; untrained, it changes nothing. `targets` are the projections that it
    updates. Not while the model serves. Raises ConfigError for a name that is taken, settings that are no adapter's, or
    without peft, and CheckpointError for a decoder that has no such projections.
    """
    if not name or any(each.name == name for each in ranker.adapters):
        raise ConfigError(f"an adapter needs a name that no other has, not '{name}'")
    try:
        settings = Settings(r=rank, lora_alpha=alpha, target_modules=tuple(targets))
    except ValidationError as error:
        raise ConfigError(explain(Path(f"adapter '{name}'"), error)) from None
    adapter = _assembled(name, settings, ranker, _new_tensors(ranker, settings))
    for module in (ranker.lm, ranker.compressor):
        if module is not None:
            module.requires_grad_(requires_grad=False)
    ranker.adapters.append(adapter)
    return adapter


def save(adapter: Adapter, folder: Path, base: str) -> None:
    """A folder as peft writes it; `base` is the `model_version` of an engine over the model it was trained with."""
    name, _, version = base.rpartition("@")
    config = _peft_config(adapter.settings)
    config.base_model_name_or_path, config.revision, config.inference_mode = name or None, version, True
    config.save_pretrained(folder)
    tensors: dict[str, torch.Tensor] = {}
    for update in adapter.updates:
        down, up = _names(update.path)
        tensors |= {down: update.down_RI.detach().contiguous(), up: update.up_OR.detach().contiguous()}
    save_file(tensors, folder / WEIGHTS_FILE, metadata={"format": "pt"})


def load(folder: Path, name: str, ranker: Ranker, base: str) -> Adapter:
    """An adapter for a ranker whose engine's `model_version` is `base`, frozen, where the ranker's weights are.

    Only safetensors are read. Raises CheckpointError for whatever is not plain LoRA of this model: what, and where.
    """
    settings = _read_settings(folder / CONFIG_FILE)
    version = base.rpartition("@")[2]
    if settings.revision != version:
        raise CheckpointError(
            f"{folder / CONFIG_FILE}: revision: it belongs to version {settings.revision!r} of a model; this is {base}"
        )
    try:
        tensors = _read_tensors(folder / WEIGHTS_FILE, _shapes(ranker, settings))
    except (OSError, SafetensorError) as error:
        raise CheckpointError(
            f"{folder / WEIGHTS_FILE}: cannot be read ({error}); other formats of weights can run code and are not read"
        ) from None
    return _assembled(name, settings, ranker, tensors).requires_grad_(requires_grad=False)


def _read_settings(path: Path) -> Settings:
    try:
        settings = Settings.model_validate_json(path.read_bytes())
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise CheckpointError(explain(path, error)) from None
    if option := settings.unknown_option():
        raise CheckpointError(f"{path}: {option}: not done here; an adapter is plain LoRA on {', '.join(TARGETS)}")
    return settings


def _read_tensors(path: Path, shapes: Mapping[str, tuple[int, int]]) -> dict[str, torch.Tensor]:
    """Exactly these, of these shapes, all numbers."""
    with safe_open(path, framework="pt") as file:
        if odd := sorted(shapes.keys() ^ set(file.keys())):
            raise CheckpointError(f"{path}: {odd[0]}: {'missing' if odd[0] in shapes else 'no part of this adapter'}")
        for name, shape in shapes.items():
            found = tuple(file.get_slice(name).get_shape())
            if found != shape:
                raise CheckpointError(f"{path}: {name}: has the shape {found}; this model and rank want {shape}")
        tensors = {name: file.get_tensor(name) for name in shapes}
    for name, tensor in tensors.items():
        if not tensor.is_floating_point() or not tensor.isfinite().all():
            raise CheckpointError(f"{path}: {name}: holds no numbers to multiply by ({tensor.dtype})")
    return tensors


def _projections(ranker: Ranker, target: Target) -> list[tuple[str, nn.Linear]]:
    """By layer, with their paths in the decoder. Raises CheckpointError where a layer has none."""
    modules = [each for each in ranker.lm.named_modules() if each[0].rpartition(".")[2] == target]
    linear = [(path, module) for path, module in modules if isinstance(module, nn.Linear)]
    if len(linear) != ranker.layers or len(modules) != ranker.layers:
        raise CheckpointError(f"the decoder has no linear {target} in each of its layers, so no adapter updates it")
    return linear


def _names(path: str) -> tuple[str, str]:
    """peft's, of the two tensors of an update."""
    return f"base_model.model.{path}.lora_A.weight", f"base_model.model.{path}.lora_B.weight"


def _shapes(ranker: Ranker, settings: Settings) -> dict[str, tuple[int, int]]:
    found: dict[str, tuple[int, int]] = {}
    for target in settings.target_modules:
        for path, linear in _projections(ranker, target):
            down, up = _names(path)
            found |= {down: (settings.r, linear.in_features), up: (linear.out_features, settings.r)}
    return found


def _assembled(name: str, settings: Settings, ranker: Ranker, tensors: Mapping[str, torch.Tensor]) -> Adapter:
    layers: list[dict[Target, LowRank]] = [{} for _ in range(ranker.layers)]
    for target in settings.target_modules:
        for layer, (path, linear) in zip(layers, _projections(ranker, target), strict=True):
            down, up = (tensors[each].to(linear.weight) for each in _names(path))
            layer[target] = LowRank(path, down, up, settings.scale)
    return Adapter(name, settings, layers)


def _new_tensors(ranker: Ranker, settings: Settings) -> dict[str, torch.Tensor]:
    """As peft begins: down random, up zero."""
    shapes = _shapes(ranker, settings)
    model = _peft().tuners.lora.LoraModel(ranker.lm, _peft_config(settings), "new")
    try:
        state = {f"base_model.{name.replace('.new.', '.')}": tensor for name, tensor in model.state_dict().items()}
        return {name: state[name].detach().clone() for name in shapes}
    finally:
        model.unload()


def _peft_config(settings: Settings) -> Any:
    return _peft().LoraConfig(
        r=settings.r, lora_alpha=settings.lora_alpha, target_modules=list(settings.target_modules),
        use_rslora=settings.use_rslora,
    )  # fmt: skip


def _peft() -> Any:
    try:
        import peft
    except ModuleNotFoundError:
        raise ConfigError("training adapters needs the package peft: pip install 'prismrank[train]'") from None
    return peft
