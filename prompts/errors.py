"""Every error that prismrank raises on purpose.

    PrismrankError
    ├── TreeError         a tree of prompts that does not hold together
    ├── TemplateError     a template that is not allowed, or that failed on real data
    ├── SpecError         a surface file that is wrong (file, line, column)
    ├── LedgerError       a ledger or a ledger folder that is wrong
    │   └── UnknownError  a member, item or surface that does not exist
    ├── CheckpointError   a model folder that cannot be loaded
    ├── DownloadError     a package that cannot be brought
    ├── ConfigError       a configuration file that is wrong
    ├── TrainingError     a training run that cannot go on
    ├── EngineError       an engine that is not there just now
    └── CapacityError     more work than there is room for

Messages are for the person who reads them: what was wrong, where, and what would be right.
"""


class PrismrankError(Exception):
    """The root of the tree."""


class TreeError(PrismrankError):
    """A tree of prompts that does not hold together."""


class TemplateError(PrismrankError):
    """A template that is not allowed, or that failed on real data."""


class SpecError(PrismrankError):
    """A surface file that is wrong; the message carries file:line:column."""


class LedgerError(PrismrankError):
    """A ledger or a ledger folder that is wrong."""


class UnknownError(LedgerError):
    """A member, an item or a surface that does not exist."""


class CheckpointError(PrismrankError):
    """A model folder that cannot be loaded."""


class DownloadError(PrismrankError):
    """A package that cannot be brought."""


class ConfigError(PrismrankError):
    """A configuration file that is wrong."""


class TrainingError(PrismrankError):
    """A training run that cannot go on."""


class EngineError(PrismrankError):
    """An engine that is not there just now; it is being started anew."""


class CapacityError(PrismrankError):
    """More work than there is room for; in `wait_s` seconds there may be some again."""

    def __init__(self, message: str, wait_s: float = 1.0) -> None:
        super().__init__(message)
        self.wait_s = wait_s
