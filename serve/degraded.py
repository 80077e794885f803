"""What is raised where the model gives no answer, on the way to a degraded slate."""

from __future__ import annotations

from prompts.errors import PrismrankError
from serve.schemas import Reason


class DegradedError(PrismrankError):
    """The engine gave no answer for this request. The request still gets its slate, in retrieval order."""

    def __init__(self, reason: Reason) -> None:
        super().__init__(f"the engine gave no answer: {reason}")
        self.reason: Reason = reason
