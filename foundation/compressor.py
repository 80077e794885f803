"""A text as one vector that stands in for its tokens.

The tokens' embeddings, pooled by a few learned queries, through one gated layer: a few thousand multiplications a text
where the decoder would spend millions, and learned with it, end to end.
Shapes: U texts, T tokens of the longest, D hidden size, Q queries.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from torch.nn import functional as F

MAX_TOKENS = 48


class Compressor(nn.Module):
    """Token embeddings of texts → vectors [U, D] in the decoder's embedding space."""

    def __init__(self, hidden_size: int, queries: int = 4, scale: float = 0.5) -> None:
        super().__init__()
        self.query_QD = nn.Parameter(torch.randn(queries, hidden_size) * 0.02)
        self.place_TQ = nn.Parameter(torch.zeros(MAX_TOKENS, queries))
        self.join = nn.Linear(queries * hidden_size, hidden_size, bias=False)
        self.norm = nn.RMSNorm(hidden_size, eps=1e-6)
        self.gate_up = nn.Linear(hidden_size, 4 * hidden_size, bias=False)
        self.down = nn.Linear(2 * hidden_size, hidden_size, bias=False)
        self.out = nn.RMSNorm(hidden_size, eps=1e-6)
        nn.init.constant_(self.out.weight, scale)

    def forward(self, embedding: nn.Embedding, texts: Sequence[tuple[int, ...]]) -> torch.Tensor:
        """[U, D]; a text longer than MAX_TOKENS is cut, an empty one is read as token 0."""
        ids_UT, mask_UT = (each.to(self.query_QD.device) for each in padded(texts))
        token_UTD = embedding(ids_UT)
        token_UTD = token_UTD * torch.rsqrt(token_UTD.pow(2).mean(-1, keepdim=True) + 1e-6)
        score_UTQ = token_UTD @ self.query_QD.T + self.place_TQ[: ids_UT.shape[1]]
        weight_UTQ = score_UTQ.masked_fill(~mask_UT[..., None], float("-inf")).softmax(dim=1)
        pooled_UQD = weight_UTQ.transpose(1, 2) @ token_UTD
        x_UD = self.join(pooled_UQD.flatten(1))
        gate, up = self.gate_up(self.norm(x_UD)).chunk(2, dim=-1)
        result: torch.Tensor = self.out(x_UD + self.down(F.silu(gate) * up))
        return result


def padded(texts: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [U, T], right-padded with token 0."""
    cut = [text[:MAX_TOKENS] or (0,) for text in texts]
    size = torch.tensor([len(text) for text in cut])
    width = int(size.max())
    ids = torch.tensor([text + (0,) * (width - len(text)) for text in cut])
    return ids, torch.arange(width) < size[:, None]
