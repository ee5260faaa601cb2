"""What can go wrong, with its exit code. A message names what is at fault; the tip is the way out."""

from __future__ import annotations


class ShimError(Exception):
    """The base of all errors that end in one line and an exit code."""

    exit_code = 1

    def __init__(self, message: str, tip: str = "") -> None:
        """Take what is wrong and what to do about it."""
        super().__init__(message)
        self.tip = tip

    @property
    def with_tip(self) -> str:
        """Both, in one sentence."""
        return f"{self} ({self.tip})" if self.tip else str(self)


class WrongUse(ShimError):
    """An option, a variable or an argument that can't be meant."""

    exit_code = 64


class FileProblem(WrongUse):
    """A file was not found, or can't be read as what it should be."""

    missing = False


class WriteRefused(ShimError):
    """A file can't be changed without changing something else, or can't be written. It is as it was."""


class NotRepaired(ShimError):
    """Something that had to be repaired wasn't, under `--strict`."""

    exit_code = 81


class CannotRun(ShimError):
    """The phase can't be run."""

    exit_code = 126


class NotFound(ShimError):
    """The phase was not found."""

    exit_code = 127
