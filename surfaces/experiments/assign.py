"""Who gets which arm of an experiment: by a hash, so that nothing has to be stored and every machine agrees."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping

from prompts.errors import ConfigError

_BITS = 53  # of a float's mantissa: more would round up to 1


def bucket(experiment: str, member_id: str, salt: str = "") -> float:
    """A number in [0, 1), the same for a member on every machine, as good as independent between experiments.

    Members of one experiment are spread evenly. Another salt deals the same experiment anew. The hash is BLAKE2b
    (RFC 7693) of the three texts as a JSON list, so that no two triples read the same.
    """
    digest = hashlib.blake2b(json.dumps([salt, experiment, member_id]).encode(), digest_size=8).digest()
    return (int.from_bytes(digest, "big") >> (64 - _BITS)) / float(2**_BITS)


def assign(experiment: str, member_id: str, arms: Mapping[str, float], salt: str = "") -> str:
    """The member's arm, drawn by the arms' shares, which need not sum to 1.

    The arms lie on [0, 1) in the order of their names, whatever the mapping's order. When the shares of two arms
    change, only those members move whom the change itself moves. Raises ConfigError without arms, and for a share
    that is not a finite number above 0.
    """
    _check(experiment, arms)
    left = bucket(experiment, member_id, salt) * math.fsum(arms.values())
    names = sorted(arms)
    for name in names:
        left -= arms[name]
        if left < 0:
            return name
    return names[-1]  # what rounding left over


def _check(experiment: str, arms: Mapping[str, float]) -> None:
    if not arms:
        raise ConfigError(f"experiment {experiment!r}: no arms; name at least one with its share")
    for name, share in arms.items():
        if not (math.isfinite(share) and share > 0):
            raise ConfigError(f"experiment {experiment!r}: arm {name!r}: share {share}; it must be a number above 0")
