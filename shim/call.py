"""A phase's command line and environment, read as the lifecycle reads them; the call without the registry lookup.

Flags are Go's: `-flag v`, `-flag=v`, `--flag v`, `--flag=v`; the last one wins, and the first word that is no flag ends
them (https://pkg.go.dev/flag). Nothing is imported but what a bare interpreter has: most builds need no more.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping, Sequence

from shim.errors import WrongUse
from shim.log import FALSE, TRUE

PHASES = ("analyzer", "detector", "restorer", "builder", "exporter", "creator", "extender", "rebaser")
WRAPPED = ("analyzer", "restorer", "exporter")
SOCKET = "unix:///var/run/docker.sock"
_AFFECTED = ("0.10", "0.11")
_BOOLEANS = ("daemon", "layout", "no-color", "parallel", "skip-layers", "skip-restore", "force", "version", "h", "help")
# The lifecycle's flags without a value. Of a fork's, what looks like a flag is not taken for the value of another.
_GROUP_PATH = "CNB_GROUP_PATH"


class Call:
    """One call of a phase. Nothing in it changes."""

    def __init__(self, argv: Sequence[str], at: int, phase: str, environ: Mapping[str, str]) -> None:
        """Take all words of a command, which of them is the phase and its name (empty: none), and the environment."""
        self.argv = tuple(argv)
        self.at = at
        self.phase = phase
        self.environ = environ
        set_by_env = _set_by_env(argv[:at])
        self.is_seen_through = set_by_env is not None
        """No launcher stands before the phase, or one of which it is known what it does: `env NAME=VALUE...`."""
        self.variables = {**environ, **(set_by_env or {})}
        """The environment as the phase sees it."""
        self.flags = {name: value for name, value, _ in _flags(self.argv, at + 1)}

    @property
    def platform_api(self) -> str:
        """`CNB_PLATFORM_API` as it stands."""
        return self.variables.get("CNB_PLATFORM_API", "")

    @property
    def is_affected(self) -> bool:
        """Whether this is a phase to wrap, at Platform API 0.10 or 0.11; the lifecycle's form is `0.11` or `v0.11`."""
        return self.phase in WRAPPED and self.platform_api.removeprefix("v") in _AFFECTED

    @property
    def asks_for_help(self) -> bool:
        """Whether only the version or help is asked for."""
        return any(self.flags.get(name) in TRUE for name in ("version", "h", "help"))

    @property
    def layers(self) -> str:
        """The layers directory: `-layers`, else `CNB_LAYERS_DIR`, else `/layers`."""
        return self._path("layers", "CNB_LAYERS_DIR", "/layers")

    @property
    def analyzed(self) -> str:
        """The path of analyzed.toml: `-analyzed`, else `CNB_ANALYZED_PATH`, else in the layers directory."""
        return self._path("analyzed", "CNB_ANALYZED_PATH", os.path.join(self.layers, "analyzed.toml"))

    @property
    def group(self) -> str:
        """The path of group.toml: `-group`, else `CNB_GROUP_PATH`, else in the layers directory."""
        return self._path("group", _GROUP_PATH, os.path.join(self.layers, "group.toml"))

    @property
    def note(self) -> str:
        """The path of the note: beside analyzed.toml."""
        return os.path.join(os.path.dirname(self.analyzed), "analyzed-shim.toml")

    @property
    def is_for_daemon(self) -> bool:
        """Whether an analyzer or exporter uses a daemon: by `-daemon`, `-layout`, else `CNB_USE_DAEMON`."""
        flag = self.flags.get("daemon", "")
        if flag in TRUE + FALSE:
            return flag in TRUE
        return self.variables.get("CNB_USE_DAEMON") in TRUE and self.flags.get("layout") not in TRUE

    def docker_host(self, given: str = "") -> str:
        """Return the address of the daemon that the phase asks, or the given one; empty if nobody knows which it is."""
        return given or ((self.variables.get("DOCKER_HOST") or SOCKET) if self.is_seen_through else "")

    def without_lookup(self, group: str) -> tuple[tuple[str, ...], dict[str, str]]:
        """Return the words and the environment with which the restorer reads the group.toml at another path.

        `CNB_GROUP_PATH` names it; a `-group` that is given would win, so its value is replaced.
        """
        words, group = list(self.argv), os.path.abspath(group)  # a launcher may go elsewhere
        for at, word in enumerate(words[: self.at]):
            if self.is_seen_through and word.startswith(f"{_GROUP_PATH}="):
                words[at] = f"{_GROUP_PATH}={group}"
        for name, _, at in _flags(self.argv, self.at + 1):
            if name == "group":
                words[at] = f"-group={group}" if words[at].startswith("-") else group
        return tuple(words), {**self.environ, _GROUP_PATH: group}

    def _path(self, flag: str, variable: str, default: str) -> str:
        return self.flags.get(flag) or self.variables.get(variable) or default


def read(words: Sequence[str], environ: Mapping[str, str], is_program: Callable[[str], bool], phase: str = "") -> Call:
    """Read what stands behind `run --`: a phase with its arguments, maybe behind a launcher.

    The phase is the first program whose base name is a phase's, as a launcher's argument may have such a name too; else
    the first word is what `phase` says (`--phase`). Raises WrongUse: that is no phase.
    """
    if phase and phase not in PHASES:
        raise WrongUse(f"--phase is {phase!r}", f"it takes {', '.join(PHASES)}")
    for at, word in enumerate(words):
        name = os.path.splitext(os.path.basename(word))[0]  # by which the lifecycle picks its phase
        if name in PHASES and is_program(word):
            return Call(words, at, name, environ)
    return Call(words, 0, phase, environ)


def split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the shim's options at the front of `run`'s arguments, by name, and the rest, which is the phase's.

    Raises WrongUse: an unknown option, or one without its value.
    """
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        argument = rest.pop(0)
        if argument == "--":
            break
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument in ("--daemon", "--no-daemon", "--strict", "--no-strict"):
            options[name.removeprefix("no-")] = "false" if name.startswith("no-") else "true"
        elif argument.startswith("--") and name in ("docker-host", "timeout", "report", "phase"):
            if not equals and not rest:
                raise WrongUse(f"--{name} needs a value", "analyzed-shim run --help lists the options")
            options[name] = value if equals else rest.pop(0)
        else:
            raise WrongUse(f"unknown option {argument.partition('=')[0]}", "analyzed-shim run --help lists the options")
    return options, rest


def _set_by_env(launcher: Sequence[str]) -> dict[str, str] | None:
    """Return the variables that `env NAME=VALUE...` sets; None if this is another launcher."""
    pairs = [word.partition("=") for word in launcher[1:]]
    if launcher and (os.path.basename(launcher[0]) != "env" or not all(name and equals for name, equals, _ in pairs)):
        return None
    return {name: value for name, _, value in pairs}


def _flags(words: Sequence[str], at: int) -> Iterator[tuple[str, str, int]]:
    """Yield each flag from a word on: its name, its value, and which word has the value."""
    while at < len(words) and words[at].startswith("-") and words[at] not in ("-", "--"):
        name, equals, value = words[at].removeprefix("-").removeprefix("-").partition("=")
        if not equals:
            value = "true"
            if name not in _BOOLEANS and at + 1 < len(words) and not words[at + 1].startswith("-"):
                at += 1
                value = words[at]
        yield name, value, at
        at += 1
