"""The errors a user can cause. Each is one line: which file, row and value, and what to do.

The command line prints the line and exits with status 2; a traceback is for defects of ours only.
"""


class MlcError(Exception):
    """Base of every error that a user's input, files or flags can cause."""


class ConfigError(MlcError):
    """A configuration key or value that cannot be used."""


class LabelsError(MlcError):
    """A labels file that cannot be read or interpreted."""


class ImageError(MlcError):
    """An image that cannot be used. `reason` is the short code that goes to quarantine.csv."""

    def __init__(self, reason: str, message: str) -> None:
        super().__init__(message)
        self.reason = reason


class WeightsError(MlcError):
    """A weight file that is missing, unsafe, damaged or of another architecture."""


class WorkdirError(MlcError):
    """A working directory that holds another run, or cannot be written."""


class CheckpointError(MlcError):
    """A checkpoint or cache block that is missing, damaged or of another run."""


class PipelineError(MlcError):
    """Data that do not come: a reader that is stuck, or a process that is gone."""


class NumericsError(MlcError):
    """A loss, gradient, feature or metric that is not finite."""
