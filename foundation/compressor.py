"""A text as one vector that stands in for its tokens.

The tokens' embeddings, pooled by a few learned queries, through one gated layer: a few thousand multiplications a text
where the decoder would spend millions, and learned with it, end to end.
Shapes: U texts, T tokens of the longest, N tokens of all texts, V different ones, D hidden size, Q queries.
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
        used_V, row_UT = torch.unique(ids_UT, return_inverse=True)  # tokens are read and weighed once each
        token_VD = embedding(used_V)
        token_VD = token_VD * torch.rsqrt(token_VD.pow(2).mean(-1, keepdim=True) + 1e-6)
        score_UTQ = F.embedding(row_UT, token_VD @ self.query_QD.T) + self.place_TQ[: ids_UT.shape[1]]
        weight_UTQ = score_UTQ.masked_fill(~mask_UT[..., None], float("-inf")).softmax(dim=1)
        pooled_UQD = pooled(token_VD, row_UT[mask_UT], weight_UTQ[mask_UT], mask_UT.sum(dim=1))
        x_UD = self.join(pooled_UQD.flatten(1))
        gate, up = self.gate_up(self.norm(x_UD)).chunk(2, dim=-1)
        result: torch.Tensor = self.out(x_UD + self.down(F.silu(gate) * up))
        return result


def pooled(token_VD: torch.Tensor, row_N: torch.Tensor, weight_NQ: torch.Tensor, size_U: torch.Tensor) -> torch.Tensor:
    """[U, Q, D]: for each text and query the weighted sum of its tokens, which follow each other in `row_N`."""
    start_U = size_U.cumsum(dim=0) - size_U
    return torch.stack(
        [
            F.embedding_bag(row_N, token_VD, start_U, mode="sum", per_sample_weights=weight_N)
            for weight_N in weight_NQ.T.contiguous()
        ],
        dim=1,
    )


def padded(texts: Sequence[tuple[int, ...]]) -> tuple[torch.Tensor, torch.Tensor]:
    """Ids and mask [U, T], right-padded with token 0."""
    cut = [text[:MAX_TOKENS] or (0,) for text in texts]
    size = torch.tensor([len(text) for text in cut])
    width = int(size.max())
    ids = torch.tensor([text + (0,) * (width - len(text)) for text in cut])
    return ids, torch.arange(width) < size[:, None]
