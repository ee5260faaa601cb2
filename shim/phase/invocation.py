"""A phase's command line and environment, read as the lifecycle reads them.

Flags are Go's: `-flag v`, `-flag=v`, `--flag v`, `--flag=v`; the last one wins, and the first
argument that isn't a flag ends them (https://pkg.go.dev/flag).
"""

from __future__ import annotations

import os

from shim.layers.rights import Rights
from shim.record import Record, boolean, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.policy.facts import Api, Phase

WRAPPED: tuple[Phase, ...] = ("analyzer", "restorer", "exporter")
_OTHERS = frozenset(("detector", "builder", "creator", "extender", "rebaser"))
_SUBCOMMANDS: dict[str, Phase] = {"analyze": "analyzer", "restore": "restorer", "export": "exporter"}
_BOOLEANS = frozenset(
    ("daemon", "layout", "no-color", "parallel", "skip-layers", "skip-restore", "force", "version", "h", "help")
)


class Invocation(Record):
    """One call of a phase."""

    phase: Phase
    program: str
    """What is run: a path, or a name to look for in PATH."""
    argv: tuple[str, ...]
    """As the phase gets it, its own name first."""
    flags: Mapping[str, str]
    end: int
    """Where in `argv` the flags end: the place for one more."""
    environ: Mapping[str, str]

    @property
    def about(self) -> bool:
        """Whether only the version or help is asked for."""
        return any(boolean(self.flags.get(name, "")) for name in ("version", "h", "help"))

    @property
    def platform_api(self) -> str:
        """`CNB_PLATFORM_API` as it stands."""
        return self.environ.get("CNB_PLATFORM_API", "")

    @property
    def api(self) -> Api:
        """Where the Platform API stands; the lifecycle's own form of a version is `0.11` or `v0.11`."""
        return api_of(self.platform_api)

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
        return self._path("group", "CNB_GROUP_PATH", os.path.join(self.layers, "group.toml"))

    @property
    def daemon(self) -> bool | None:
        """What the phase's own `-daemon` says; None where it wasn't given."""
        return boolean(self.flags.get("daemon", ""))

    @property
    def layout(self) -> bool | None:
        """What the phase's own `-layout` says; None where it wasn't given."""
        return boolean(self.flags.get("layout", ""))

    @property
    def is_for_daemon(self) -> bool:
        """Whether an analyzer or exporter called like this works on a daemon.

        The platform calls both with `-daemon` in a daemon build; without a flag, `CNB_USE_DAEMON` counts.
        """
        if self.daemon is not None:
            return self.daemon
        if self.layout or (self.variable("CNB_USE_LAYOUT") and not self.variable("CNB_USE_DAEMON")):
            return False
        return self.variable("CNB_USE_DAEMON") or False

    @property
    def rights(self) -> Rights:
        """The user that the phase drops to where it starts as root."""
        return Rights(uid=self._number("uid", "CNB_USER_ID"), gid=self._number("gid", "CNB_GROUP_ID"))

    def _number(self, flag: str, variable: str) -> int:
        text = self.flags.get(flag) or self.environ.get(variable, "")
        return int(text) if text.isdecimal() and len(text) < 10 else 0

    def variable(self, name: str) -> bool | None:
        """Read a boolean variable as the lifecycle does; None where it doesn't speak."""
        return boolean(self.environ.get(name, ""))

    def with_group(self, path: str) -> tuple[str, ...]:
        """Return the arguments with `-group` once more, behind the other flags, where it wins."""
        return (*self.argv[: self.end], "-group", path, *self.argv[self.end :])

    def _path(self, flag: str, variable: str, default: str) -> str:
        return self.flags.get(flag) or environment(self.environ, variable) or default


def read(program: str, argv: Sequence[str], environ: Mapping[str, str], phase: Phase | None = None) -> Invocation:
    """Read a call of a phase.

    Args:
        program: what to run.
        argv: the arguments as the phase gets them, its own name first.
        environ: its environment.
        phase: which phase it is; by default the base name of `argv[0]` says so.

    """
    start = 1
    if phase is None:
        phase = phase_of(argv[0])
        if os.path.basename(argv[0]) == "lifecycle" and len(argv) > 1:
            phase, start = _SUBCOMMANDS.get(os.path.basename(argv[1]), "other"), 2
    flags, end = _flags(argv, start)
    return Invocation(phase=phase, program=program, argv=tuple(argv), flags=flags, end=end, environ=environ)


def phase_of(name: str) -> Phase:
    """Say which phase a program is, by its base name without extension, as the lifecycle does.

    Another phase of the lifecycle is `other`; anything else is taken for the restorer.
    """
    base = os.path.splitext(os.path.basename(name))[0]
    for phase in WRAPPED:
        if base == phase:
            return phase
    return "other" if base in _OTHERS else "restorer"


def api_of(text: str) -> Api:
    """Say where a Platform API stands towards 0.10 and 0.11, the two that this is about.

    What isn't a version is `unset`: the lifecycle refuses it by itself.
    """
    major, _, minor = text.removeprefix("v").partition(".")
    if not major.isdecimal() or not (minor or "0").isdecimal():
        return "unset"
    version = (int(major), int(minor or "0"))
    if version < (0, 10):
        return "older"
    return "affected" if version < (0, 12) else "newer"


def _flags(argv: Sequence[str], start: int) -> tuple[dict[str, str], int]:
    """Return the flags, and where they end. What Go's parser would refuse ends them too."""
    flags: dict[str, str] = {}
    at = start
    while at < len(argv):
        argument = argv[at]
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if argument[:1] != "-" or not name or name[0] == "-":
            break
        if not equals and name not in _BOOLEANS:
            if at + 1 == len(argv):
                break
            at += 1
            value = argv[at]
        flags[name] = value if equals or name not in _BOOLEANS else "true"
        at += 1
    return flags, at
