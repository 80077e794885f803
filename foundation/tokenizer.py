"""Byte-level BPE of our own for models made here; any Hugging Face tokenizer for models that bring one.

Text is data: whatever a member or an item says, `encode` never returns a control token.
"""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path

from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerBase, PreTrainedTokenizerFast

from prompts.errors import CheckpointError, ConfigError

BOS, EOS, PAD = "<|begin|>", "<|end|>", "<|pad|>"
ANSWER_WORDS = (" yes", " no", " none")


def train(texts: Iterable[str], vocab_size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE learned from `texts`. Answer words are tokens of their own, whatever the texts say."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r" ?\p{L}+| ?\p{N}{1,4}| ?[^\s\p{L}\p{N}]+|\s+"), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[BOS, EOS, PAD],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    answers = [word for word in ANSWER_WORDS for _ in range(1_000)]
    tokenizer.train_from_iterator([*texts, *answers], trainer)
    return PreTrainedTokenizerFast(  # type: ignore[no-untyped-call]
        tokenizer_object=tokenizer, bos_token=BOS, eos_token=EOS, pad_token=PAD, clean_up_tokenization_spaces=False
    )


class TextEncoder:
    """Text to token ids, each text alone, nothing added, control tokens never formed."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        backend = getattr(tokenizer, "backend_tokenizer", None)
        if backend is None:
            raise CheckpointError("the checkpoint's tokenizer has no fast form (tokenizer.json); convert it first")
        self.tokenizer = tokenizer
        self._backend: Tokenizer = Tokenizer.from_str(backend.to_str())
        self._backend.encode_special_tokens = True
        self._backend.no_padding()
        self._backend.no_truncation()
        self._control = frozenset(tokenizer.all_special_ids) | _markers(self._backend)
        self._numbers: dict[int, int] = {}  # each token's number is one object, however often it is kept
        self.encode = lru_cache(maxsize=16_384)(self._encode)
        self.words = lru_cache(maxsize=1_024)(self._words)
        bos = tokenizer.bos_token_id
        self.begin: tuple[int, ...] = () if bos is None else (int(bos),)

    @classmethod
    def load(cls, folder: Path) -> TextEncoder:
        """From a Hugging Face folder. Raises CheckpointError."""
        try:
            return cls(AutoTokenizer.from_pretrained(folder, trust_remote_code=False, local_files_only=True))
        except (OSError, ValueError, KeyError) as error:
            raise CheckpointError(f"{folder}: its tokenizer cannot be read: {_line(error)}") from None
        except Exception as error:  # the Rust side raises bare Exception
            raise CheckpointError(f"{folder}/tokenizer.json: damaged: {_line(error)}") from None

    def _encode(self, text: str) -> tuple[int, ...]:
        told = self._backend.encode(text, add_special_tokens=False).ids
        ids = tuple(map(self._numbers.setdefault, told, told))
        if self._control.isdisjoint(ids):
            return ids
        return tuple(i for i in ids if i not in self._control)

    def word(self, word: str) -> int:
        """The one token at which an answer is read: the first of " word"."""
        ids = self.encode(" " + word)
        if not ids:
            raise ConfigError(f"the answer '{word}' has no tokens")
        return ids[0]

    def _words(self, words: tuple[str, ...]) -> tuple[int, ...]:
        """Token ids of answers. Raises ConfigError when two begin with the same token."""
        ids = tuple(self.word(word) for word in words)
        if len(set(ids)) < len(ids):
            twin = next(w for n, w in enumerate(words) if ids[n] in ids[:n])
            raise ConfigError(f"the answer '{twin}' begins with the same token as another answer: rename one")
        return ids


def _markers(backend: Tokenizer) -> frozenset[int]:
    """Added tokens that look like markup, special or not: some chat models declare theirs as plain ones."""
    added = backend.get_added_tokens_decoder().items()
    return frozenset(number for number, token in added if token.special or not token.content.strip().isalnum())


def _line(error: Exception) -> str:
    return str(error).strip().split("\n")[0][:300]
