"""Property tests have no deadline for a single example: the machine may be busy."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("prismrank", deadline=None)
settings.load_profile("prismrank")
