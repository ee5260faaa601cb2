"""What can go wrong, each with the exit code that the shim ends with.

A message says what is wrong, naming the file; `tip` is the way out; `outcome` ends the line of a run.
"""

from __future__ import annotations


class ShimError(Exception):
    """The base of all errors that end in one clear line and an exit code."""

    exit_code = 1

    def __init__(self, message: str, tip: str = "", outcome: str = "") -> None:
        """Take what is wrong, what to do about it, and the outcome where it is one."""
        super().__init__(message)
        self.tip = tip
        self.outcome = outcome

    @property
    def with_tip(self) -> str:
        """What is wrong and what to do about it, in one sentence."""
        return f"{self} ({self.tip})" if self.tip else str(self)


class WrongUse(ShimError):
    """An option or a variable that the shim can't read."""

    exit_code = 64


class CannotRun(ShimError):
    """The phase is there but can't be run."""

    exit_code = 126


class CannotStart(ShimError):
    """There is no room for another process."""

    exit_code = 126


class NotThere(ShimError):
    """The phase isn't there."""

    exit_code = 127


class NotInDaemon(ShimError):
    """The run image isn't in the daemon, under pull policy `never`."""

    exit_code = 80


class NotRepaired(ShimError):
    """Something that had to be repaired wasn't, under `--strict`."""

    exit_code = 81


class MissingFile(ShimError):
    """A file isn't there."""

    exit_code = 66


class BrokenFile(ShimError):
    """A file is there but can't be read as what it should be."""

    exit_code = 66


class EditRefused(ShimError):
    """analyzed.toml can't be changed without changing something else, or can't be written."""

    exit_code = 73


class Unreachable(ShimError):
    """The daemon didn't give a usable answer."""


class PullFailed(ShimError):
    """The daemon couldn't pull the run image."""
