"""SASRec: a causal transformer over a member's items, trained to name the next one among the whole catalogue.

Kang and McAuley, "Self-attentive sequential recommendation", ICDM 2018. The loss is the full cross-entropy of
Klenitskiy and Vasilev, "Turning dross into gold loss: is BERT4Rec really better than SASRec?", RecSys 2023, in place
of one drawn negative a position; Petrov and Macdonald, "gSASRec", RecSys 2023, show what few negatives cost.

What is not in the paper: layers normalise first, positions count from the end of a sequence, and the weights that rank
are a running mean of those that learn (Polyak and Juditsky, SIAM J. Control Optim. 30, 1992).

Legend of array names: I items, K items that occur in training, B sequences of a batch, L positions, P positions of a
batch without padding, D dimensions.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal

import numpy as np
import numpy.typing as npt
import torch
from pydantic import Field
from torch import Tensor, nn
from torch.nn import functional

from foundation.wheels import cache_folder
from prompts.errors import ConfigError, TrainingError
from surfaces.sources.base import NOTHING, Indices, Interactions, Materials, Scores, SourceKind
from surfaces.sources.kept import keep, kept, key_of
from surfaces.sources.matrix import places_of
from surfaces.visit import NOBODY, Visit

HELD = 500
"""Of so many members, drawn by the seed, the last event is held out to tell when to stop."""

FEWEST = 3
"""Events of a member whose last one may be held out: one to read and one to learn from stay."""

ROWS = 100
"""Members whose logits a check holds at a time."""

STEPS_BETWEEN_CHECKS = 150
"""A check comes after whole epochs, and after about so many steps: it costs some of them."""

WARM_UP = 50
"""Steps in which the learning rate rises to its full height."""

MEAN = 0.99
"""What the running mean of the weights keeps at a step."""

LARGEST = 20_000
"""Items that a surface's source takes: at 100,000 events, an epoch over them takes a minute of one core."""

FEWEST_CHOICES = 2_000
"""With fewer choices than these a surface's source has too little to learn an order from, and says nothing."""

LOGITS_AT_ONCE = 1 << 21
"""8 MB: what fits the processor's cache. Logits that do not fit take four times as long."""


class SasRec:
    """Scores items by the dot product of what the newest item's position says and the item's own vector.

    An epoch over P transitions takes about P D (3 K + 18 layers D) multiply-adds, forwards and backwards, and memory
    for the weights five times over and for the positions of one batch.

    `epochs` are the most that it trains. With a `patience` it stops after so many checks without a better NDCG@10 on
    the last events of some members, which it then does not learn from, and goes back to its best weights; with None it
    learns from everything for all `epochs`. `settings_after_fit` tells the epochs found. `max_length` items are read,
    the last ones. `batch` is in sequences. `progress` hears how many epochs are done, and of how many at most. From
    fewer than `fewest` choices nothing is learned. A `cache` folder keeps what was learned, by a hash of settings and
    sequences: the same fit comes from there the next time.
    """

    def __init__(
        self,
        *,
        dim: int = 64,
        layers: int = 2,
        heads: int = 2,
        dropout: float = 0.3,
        learning_rate: float = 2e-3,
        weight_decay: float = 0.0,
        max_length: int = 100,
        epochs: int = 200,
        patience: int | None = 4,
        batch: int = 16,
        fewest: int = 2,
        seed: int = 0,
        progress: Callable[[int, int], None] | None = None,
        cache: Path | None = None,
    ) -> None:
        sizes = {"dim": dim, "layers": layers, "heads": heads, "max_length": max_length, "epochs": epochs}
        _check({**sizes, "batch": batch, "fewest": fewest, "patience": 1 if patience is None else patience}, heads)
        if not 0 <= dropout < 1 or not learning_rate > 0 or not weight_decay >= 0:
            raise ConfigError(
                f"sasrec: dropout {dropout} must be at least 0 and below 1, learning_rate {learning_rate} above 0, "
                f"weight_decay {weight_decay} at least 0"
            )
        self.dim, self.layers, self.heads, self.dropout = dim, layers, heads, dropout
        self.learning_rate, self.weight_decay = learning_rate, weight_decay
        self.max_length, self.epochs, self.patience, self.batch = max_length, epochs, patience, batch
        self.fewest, self.seed = fewest, seed
        self.best_epochs: int | None = None
        self._progress, self._cache = progress, cache
        self._known_K: Indices = np.zeros(0, dtype=np.int64)
        self._place_I: Indices = np.zeros(0, dtype=np.int64)
        self._encoder: Encoder | None = None

    def fit(self, data: Interactions) -> None:
        """Trains on the sequences; items that are in none of them stay without a score.

        Two fits with the same seed and one thread give the same weights; torch's own generator is left as it was.
        Raises TrainingError when the loss is no number any more.
        """
        self._known_K = data.chosen
        self._place_I = places_of(self._known_K, len(data.item_ids))
        self._encoder, self.best_epochs = None, None
        sequences = [self._place_I[sequence] for sequence in data.sequences]
        if sum(map(len, sequences)) >= self.fewest and any(len(sequence) > 1 for sequence in sequences):
            self._encoder, self.best_epochs = self._known_or_trained(sequences)

    @property
    def learned(self) -> bool:
        """Whether there were choices enough to learn from."""
        return self._encoder is not None

    def scores(self, history_H: Indices, visit: Visit = NOBODY) -> Scores:  # noqa: ARG002 - the history says it all
        """[items]: logits; `NOTHING` for items not in training, and for all where the history has none that was."""
        scores_I = np.full(len(self._place_I), NOTHING)
        places = self._place_I[history_H]
        read = places[places >= 0][-self.max_length :]
        if self._encoder is not None and len(read):
            scores_I[self._known_K] = self._encoder.next_items([read])[0]
        return scores_I

    def settings_after_fit(self) -> dict[str, object]:
        """Settings that fit as long again and hold nothing out; empty when nothing was learned."""
        return {} if self.best_epochs is None else {"epochs": self.best_epochs, "patience": None}

    def _known_or_trained(self, sequences: Sequence[Indices]) -> tuple[Encoder, int]:
        """From the cache, or trained and put there."""
        settings = {name: value for name, value in vars(self).items() if not name.startswith("_")}
        path = self._cache and self._cache / f"{key_of(settings, sequences)}.safetensors"
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(self.seed)
            if path and (found := kept(path)):
                encoder = self.encoder(len(self._known_K)).eval().requires_grad_(False)
                encoder.load_state_dict(found.weights)
                return encoder, found.epochs
            encoder, epochs = self._trained(sequences)
        if path:
            keep(path, encoder, epochs)
        return encoder, epochs

    def encoder(self, items: int) -> Encoder:
        """Fresh weights."""
        shape = {"dim": self.dim, "layers": self.layers, "heads": self.heads}
        return Encoder(items, self.max_length, **shape, dropout=self.dropout)

    def _trained(self, sequences: Sequence[Indices]) -> tuple[Encoder, int]:
        """The weights that rank, and after how many epochs they were so."""
        trainer = _Trainer(self, len(self._known_K))
        rng = np.random.default_rng(self.seed)
        held = None if self.patience is None else held_out(sequences, rng)
        if held is None:
            for epoch in range(1, self.epochs + 1):
                trainer.epoch(sequences, rng)
                self._tell(epoch)
            return trainer.mean, self.epochs
        return self._stopped_early(trainer, held, rng)

    def _stopped_early(self, trainer: _Trainer, held: Held, rng: np.random.Generator) -> tuple[Encoder, int]:
        """The weights of the best check, and its epoch."""
        best, best_epoch, best_value, worse, steps = trainer.mean, 0, -1.0, 0, 0
        for epoch in range(1, self.epochs + 1):
            steps += trainer.epoch(held.rest, rng)
            self._tell(epoch)
            if steps < STEPS_BETWEEN_CHECKS and epoch < self.epochs:
                continue
            value, steps, worse = held.ndcg(trainer.mean, self.max_length), 0, worse + 1
            if value > best_value:
                best, best_epoch, best_value, worse = copy.deepcopy(trainer.mean), epoch, value, 0
            if worse == self.patience:
                break
        return best, best_epoch

    def _tell(self, epoch: int) -> None:
        if self._progress:
            self._progress(epoch, self.epochs)


class SasRecSource(SourceKind):
    """Items that a small transformer over item ids expects next; it learns the order of choices.

    It takes minutes to learn from a large ledger; what it learned is kept in the cache folder until events come.
    """

    label: ClassVar[str] = "sequence"
    of_history: ClassVar[bool] = True
    of_new: ClassVar[float | None] = NOTHING
    type: Literal["sasrec"]
    dim: int = Field(64, ge=2, le=1024, multiple_of=2, description="Numbers that stand for an item.")
    layers: int = Field(2, ge=1, le=8, description="Of the transformer.")
    dropout: float = Field(0.3, ge=0, lt=1, description="The more, the less it learns by heart.")
    max_length: int = Field(100, ge=2, le=1_000, description="How many items of a timeline are read, the last ones.")
    epochs: int = Field(200, ge=1, le=10_000, description="The most that it trains; it finds out when to stop.")
    fewest: int = Field(FEWEST_CHOICES, ge=2, description="With fewer choices than these it says nothing.")

    def build(self, materials: Materials) -> SasRec:
        """A source with these settings, to be fitted. Raises ConfigError for more than 20,000 items with events."""
        if (items := len(materials.data.chosen)) > LARGEST:
            raise ConfigError(f"sasrec: {items:,} items with events; it takes up to {LARGEST:,}: use itemknn here")
        return SasRec(
            dim=self.dim,
            layers=self.layers,
            dropout=self.dropout,
            max_length=self.max_length,
            epochs=self.epochs,
            fewest=self.fewest,
            cache=cache_folder() / "sasrec",
        )


def _check(counts: Mapping[str, int], heads: int) -> None:
    """Raises ConfigError for a count below 1, or a dimension that the heads cannot share."""
    for name, count in counts.items():
        if count < 1:
            raise ConfigError(f"sasrec: {name} {count}; it must be 1 or more")
    if counts["dim"] % heads:
        raise ConfigError(f"sasrec: dim {counts['dim']} must be a multiple of heads {heads}")


class _Block(nn.Module):
    """Attention to earlier positions, then a layer of each position's own; both add to what comes in."""

    def __init__(self, dim: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm, self.own_norm = nn.LayerNorm(dim), nn.LayerNorm(dim)
        self.query_key_value, self.out = nn.Linear(dim, 3 * dim), nn.Linear(dim, dim)
        self.own = nn.Sequential(nn.Linear(dim, dim), nn.GELU(), nn.Linear(dim, dim))
        self.dropout = nn.Dropout(dropout)

    def forward(self, x_BLD: Tensor) -> Tensor:
        """[B, L, D] to [B, L, D]."""
        x_BLD = x_BLD + self.dropout(self._attention(self.attention_norm(x_BLD)))
        own_BLD: Tensor = self.dropout(self.own(self.own_norm(x_BLD)))
        return x_BLD + own_BLD

    def _attention(self, x_BLD: Tensor) -> Tensor:
        sizes = (*x_BLD.shape[:2], 3, self.heads, -1)
        query, key, value = self.query_key_value(x_BLD).view(sizes).permute(2, 0, 3, 1, 4)
        mixed = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        out_BLD: Tensor = self.out(mixed.transpose(1, 2).flatten(2))
        return out_BLD


class Encoder(nn.Module):
    """Reads items from the left; the padding is on the right, where no position sees it."""

    def __init__(self, items: int, max_length: int, *, dim: int, layers: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.items, self.positions = nn.Embedding(items, dim), nn.Embedding(max_length, dim)
        for table in (self.items, self.positions):
            nn.init.normal_(table.weight, std=dim**-0.5)
        self.blocks = nn.ModuleList(_Block(dim, heads, dropout) for _ in range(layers))
        self.norm, self.dropout, self.scale = nn.LayerNorm(dim), nn.Dropout(dropout), dim**0.5

    def forward(self, items_BL: Tensor, lengths_B: Tensor) -> Tensor:
        """[B, L, D]: what each position says of the next item; nothing of worth at padding."""
        from_end_BL = lengths_B[:, None] - 1 - torch.arange(items_BL.shape[1])
        x_BLD = (self.items(items_BL) + self.positions(from_end_BL.clamp_min(0))) * self.scale
        x_BLD = self.dropout(x_BLD)
        for block in self.blocks:
            x_BLD = block(x_BLD)
        hidden_BLD: Tensor = self.norm(x_BLD)
        return hidden_BLD

    def next_items(self, histories: Sequence[Indices]) -> npt.NDArray[np.float32]:
        """[B, K]: logits of what comes after each history, none of which is empty."""
        with torch.inference_mode():
            items_BL, lengths_B = padded(histories)
            last_BD = self(items_BL, lengths_B)[torch.arange(len(lengths_B)), lengths_B - 1]
            logits_BK: npt.NDArray[np.float32] = (last_BD @ self.items.weight.T).numpy()
        return logits_BK


class _FullCrossEntropy(torch.autograd.Function):
    """The gradients, softmax minus target times the other factor, are worked out in blocks on the way forward."""

    @staticmethod
    def forward(ctx: Any, hidden_PD: Tensor, items_KD: Tensor, targets_P: Tensor) -> Tensor:
        """A scalar, in nats."""
        count = len(targets_P)
        by_hidden_PD, by_items_KD, loss = torch.empty_like(hidden_PD), torch.zeros_like(items_KD), 0.0
        rows = max(1, LOGITS_AT_ONCE // len(items_KD))
        for start in range(0, count, rows):
            hidden_RD, targets_R = hidden_PD[start : start + rows], targets_P[start : start + rows]
            wrong_RK = torch.softmax(hidden_RD @ items_KD.T, dim=1)
            each_R = torch.arange(len(targets_R))
            loss -= wrong_RK[each_R, targets_R].clamp_min(torch.finfo(torch.float32).tiny).log().sum().item()
            wrong_RK[each_R, targets_R] -= 1
            torch.mm(wrong_RK, items_KD, out=by_hidden_PD[start : start + rows])
            by_items_KD.addmm_(wrong_RK.T, hidden_RD)
        ctx.save_for_backward(by_hidden_PD.div_(count), by_items_KD.div_(count))
        return hidden_PD.new_tensor(loss / count)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, Tensor, None]:
        """The gradients by `hidden_PD` and `items_KD`."""
        by_hidden_PD, by_items_KD = ctx.saved_tensors
        return by_hidden_PD * gradients[0], by_items_KD * gradients[0], None


def full_cross_entropy(hidden_PD: Tensor, items_KD: Tensor, targets_P: Tensor) -> Tensor:
    """The mean cross-entropy of P targets among K items, a scalar in nats; [P, K] logits are never held at once."""
    loss: Tensor = _FullCrossEntropy.apply(hidden_PD, items_KD, targets_P)  # type: ignore[no-untyped-call]
    return loss


class _Trainer:
    """Weights that learn, and their running mean, which ranks."""

    def __init__(self, settings: SasRec, items: int) -> None:
        self._batch, self._max_length = settings.batch, settings.max_length
        self._learning_rate, self._step = settings.learning_rate, 0
        self._encoder = settings.encoder(items)
        self.mean = copy.deepcopy(self._encoder).eval().requires_grad_(False)
        self._optimizer = torch.optim.AdamW(
            self._encoder.parameters(),
            lr=settings.learning_rate,
            betas=(0.9, 0.98),
            weight_decay=settings.weight_decay,
            fused=True,
        )

    def epoch(self, sequences: Sequence[Indices], rng: np.random.Generator) -> int:
        """Learns from every transition once; says in how many steps."""
        before = self._step
        for batch in batches(windows(sequences, self._max_length, rng), self._batch, rng):
            self._learn(batch)
        return self._step - before

    def _learn(self, batch: Sequence[Indices]) -> None:
        self._step += 1
        for group in self._optimizer.param_groups:
            group["lr"] = self._learning_rate * min(1.0, self._step / WARM_UP)
        loss = self._loss(batch)
        if not math.isfinite(loss.item()):
            raise TrainingError(f"sasrec: the loss at step {self._step} is {loss.item()}; lower the learning_rate")
        self._optimizer.zero_grad()
        torch.autograd.backward(loss)
        self._optimizer.step()
        keep = min(MEAN, self._step / (self._step + 10))
        torch._foreach_lerp_(list(self.mean.parameters()), list(self._encoder.parameters()), 1 - keep)

    def _loss(self, batch: Sequence[Indices]) -> Tensor:
        items_BL, lengths_B = padded(batch)
        inputs_BL, lengths_B = items_BL[:, :-1], lengths_B - 1
        real_BL = torch.arange(inputs_BL.shape[1]) < lengths_B[:, None]
        hidden_PD = self._encoder(inputs_BL, lengths_B)[real_BL]
        return full_cross_entropy(hidden_PD, self._encoder.items.weight, items_BL[:, 1:][real_BL])


@dataclass(frozen=True, slots=True)
class Held:
    """`targets[m]` is what followed `histories[m]`; `rest` is all that may be learned from."""

    histories: Sequence[Indices]
    targets: Sequence[int]
    rest: Sequence[Indices]

    def ndcg(self, encoder: Encoder, max_length: int) -> float:
        """The mean NDCG@10 of the targets among all items that are not in the history."""
        values = []
        for start in range(0, len(self.targets), ROWS):
            histories = self.histories[start : start + ROWS]
            logits_BK = encoder.next_items([history[-max_length:] for history in histories])
            for logits_K, history, target in zip(logits_BK, histories, self.targets[start:], strict=False):
                above_K = logits_K > logits_K[target]
                above_K[history] = False
                values.append(_gain(int(above_K.sum())))
        return float(np.mean(values))


def held_out(sequences: Sequence[Indices], rng: np.random.Generator) -> Held | None:
    """The last events of `HELD` members or fewer, of those with three events or more; None where there are none."""
    long = [member for member, sequence in enumerate(sequences) if len(sequence) >= FEWEST]
    if not long:
        return None
    drawn = {int(member) for member in rng.permutation(long)[:HELD]}
    rest = [sequence[:-1] if member in drawn else sequence for member, sequence in enumerate(sequences)]
    order = sorted(drawn)
    return Held([rest[member] for member in order], [int(sequences[member][-1]) for member in order], rest)


def windows(sequences: Sequence[Indices], max_length: int, rng: np.random.Generator) -> list[Indices]:
    """Every transition once, in pieces of up to `max_length` of them; where a long sequence is cut, `rng` draws."""
    pieces = []
    for sequence in sequences:
        transitions = len(sequence) - 1
        end = transitions
        if transitions > max_length:
            end -= int(rng.integers(max_length))
            pieces.append(sequence[end:])
        while end > 0:
            pieces.append(sequence[max(end - max_length, 0) : end + 1])
            end -= max_length
    return [piece for piece in pieces if len(piece) > 1]


def batches(pieces: Sequence[Indices], size: int, rng: np.random.Generator) -> Iterator[list[Indices]]:
    """`size` pieces of about the same length each, in an order that `rng` draws."""
    shuffled = [pieces[place] for place in rng.permutation(len(pieces))]
    shuffled.sort(key=len)
    starts = np.arange(0, len(shuffled), size)
    for start in rng.permutation(starts):
        yield shuffled[start : start + size]


def padded(sequences: Sequence[Indices]) -> tuple[Tensor, Tensor]:
    """[B, L] with zeros to the right, and the lengths [B]."""
    lengths = [len(sequence) for sequence in sequences]
    items_BL = np.zeros((len(sequences), max(lengths)), dtype=np.int64)
    for row, sequence in enumerate(sequences):
        items_BL[row, : len(sequence)] = sequence
    return torch.from_numpy(items_BL), torch.tensor(lengths)


def _gain(above: int) -> float:
    """NDCG@10 of one target with so many items above it."""
    return 1 / math.log2(above + 2) if above < 10 else 0.0
