"""A phase's command line and environment, read as the lifecycle reads them.

Flags are Go's: `-flag v`, `-flag=v`, `--flag v`, `--flag=v`; the last one wins, and the first argument that is not a
flag ends them (https://pkg.go.dev/flag). A fork of the lifecycle may have flags that are not known here: such a flag
takes the next argument for its value only if that does not look like a flag.
"""

from __future__ import annotations

import os

from shim.layers.rights import Rights
from shim.record import Record, boolean, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping, Sequence

    from shim.policy.facts import Api, Phase

WRAPPED: tuple[Phase, ...] = ("analyzer", "restorer", "exporter")
LIFECYCLE = "lifecycle"
"""The program that is all phases: by the base name of `argv[0]`, else by a subcommand."""
_OTHERS = frozenset(("detector", "builder", "creator", "extender", "rebaser"))
_SUBCOMMANDS: dict[str, Phase] = {
    "analyze": "analyzer",
    "restore": "restorer",
    "export": "exporter",
    **dict.fromkeys(("detect", "build", "create", "extend", "rebase"), "other"),
}
_BOOLEANS = frozenset(
    ("daemon", "layout", "no-color", "parallel", "skip-layers", "skip-restore", "force", "version", "h", "help")
)
_VALUED = frozenset(
    (
        *("analyzed", "app", "build-config", "build-image", "buildpacks", "cache-dir", "cache-image", "extended"),
        *("extensions", "generated", "gid", "group", "insecure-registry", "kaniko-cache-ttl", "kind", "launch-cache"),
        *("launcher", "launcher-sbom", "layers", "layout-dir", "log-level", "order", "plan", "plan-path"),
        *(
            "platform",
            "previous-image",
            "process-type",
            "project-metadata",
            "report",
            "run",
            "run-image",
            "stack",
            "tag",
            "uid",
        ),
    )
)


class Invocation(Record):
    """One call of a phase."""

    phase: Phase
    named: bool
    """It is sure which argument is the phase; else it is only taken for it."""
    launched: bool
    """A launcher stands before the phase."""
    program: str
    """What is started: a path, or a name to look for in PATH; the launcher, if there is one."""
    argv: tuple[str, ...]
    """All arguments, the program's own name first."""
    at: int
    """Where in `argv` the phase's own arguments begin."""
    flags: Mapping[str, str]
    environ: Mapping[str, str]
    """What the program is started with."""
    variables: Mapping[str, str]
    """The environment as the phase sees it: an `env` before it may have changed it."""
    root: str
    """The directory that a `chroot` before the phase makes its root, else `/`."""
    directory: str
    """What the phase's relative paths begin at, if a launcher before it goes there; else empty."""

    @property
    def about(self) -> bool:
        """Whether only the version or help is asked for."""
        return any(boolean(self.flags.get(name, "")) for name in ("version", "h", "help"))

    @property
    def platform_api(self) -> str:
        """`CNB_PLATFORM_API` as it stands."""
        return self.variables.get("CNB_PLATFORM_API", "")

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
    def is_for_daemon(self) -> bool:
        """Whether an analyzer or exporter called like this uses a daemon.

        The platform calls both with `-daemon` in a daemon build; without that flag, `CNB_USE_DAEMON` counts.
        """
        daemon = boolean(self.flags.get("daemon", ""))
        if daemon is not None:
            return daemon
        daemon = self.variable("CNB_USE_DAEMON") or False
        return daemon and not boolean(self.flags.get("layout", ""))

    @property
    def rights(self) -> Rights:
        """The user that the phase drops to if it starts as root."""
        return Rights(uid=self._number("uid", "CNB_USER_ID"), gid=self._number("gid", "CNB_GROUP_ID"))

    def variable(self, name: str) -> bool | None:
        """Return a boolean variable as the lifecycle reads it; None if it is unset or says nothing."""
        return boolean(self.variables.get(name, ""))

    def _number(self, flag: str, variable: str) -> int:
        text = self.flags.get(flag) or self.variables.get(variable, "")
        return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else 0

    def _path(self, flag: str, variable: str, default: str) -> str:
        return os.path.join(self.directory, self.flags.get(flag) or environment(self.variables, variable) or default)


def read(
    arguments: Sequence[str], environ: Mapping[str, str], is_program: Callable[[str], bool] = lambda _: True
) -> Invocation:
    """Read what stands behind `run --`: a phase with its arguments, maybe behind a launcher.

    The phase is the first program among the arguments whose base name is that of a phase, else the first argument
    with such a name. Without one the first argument is taken for the restorer: a script by any other name.

    Args:
        arguments: the launcher, if there is one, the phase and its arguments; at least one.
        environ: the environment.
        is_program: whether an argument can be run; a launcher may have a value that is only called like a phase.

    """
    named = [at for at, argument in enumerate(arguments) if _is_phase(argument)]
    sure = next((at for at in named if at == 0 or is_program(arguments[at])), None)
    at = sure if sure is not None else named[0] if named else 0
    phase, length = _phase_at(arguments[at:]) if named else ("restorer", 1)
    return _read(arguments[0], arguments, at, at + length, phase, sure is not None, environ)


def drop_in(real: str, argv: Sequence[str], environ: Mapping[str, str]) -> Invocation:
    """Read a phase's call, in whose place the shim is: the base name of `argv[0]` is the phase's.

    Args:
        real: the path of the real phase.
        argv: the arguments, all of them the phase's but its own name.
        environ: the environment.

    """
    return _read(real, argv, 0, 1, _phase_of(argv[0]) or "restorer", True, environ)


def _read(
    program: str,
    argv: Sequence[str],
    at: int,
    first: int,
    phase: Phase,
    named: bool,
    environ: Mapping[str, str],
) -> Invocation:
    variables, root, directory = environ, "/", ""
    if at:
        from shim.phase.launcher import behind

        seen = behind(argv[:at], environ)
        variables, root, directory = seen.variables, seen.root, seen.directory
    return Invocation(
        phase=phase,
        named=named,
        launched=at > 0,
        program=program,
        argv=tuple(argv),
        at=first,
        flags=dict(_flags(argv[first:])),
        environ=environ,
        variables=variables,
        root=root,
        directory=directory,
    )


def _phase_of(name: str) -> Phase | None:
    """Return which phase a program is, by its base name without extension, as the lifecycle does."""
    base = os.path.splitext(os.path.basename(name))[0]
    for phase in WRAPPED:
        if base == phase:
            return phase
    return "other" if base in _OTHERS else None


def _phase_at(arguments: Sequence[str]) -> tuple[Phase, int]:
    """Return the phase that begins here, and how many arguments its name has: `lifecycle restore` has two."""
    phase = _SUBCOMMANDS.get(arguments[1]) if arguments[1:] and os.path.basename(arguments[0]) == LIFECYCLE else None
    return (phase, 2) if phase else (_phase_of(arguments[0]) or "other", 1)


def _is_phase(argument: str) -> bool:
    name, equals, _ = argument.partition("=")
    if argument.startswith("-") or (equals and name.isidentifier()):
        return False
    return _phase_of(argument) is not None or os.path.basename(argument) == LIFECYCLE


def api_of(text: str) -> Api:
    """Return where a Platform API stands towards 0.10 and 0.11, the two that this is about.

    What is no version is `unset`: the lifecycle refuses it by itself.
    """
    major, _, minor = text.removeprefix("v").partition(".")
    if not text.isascii() or len(text) > 20 or not major.isdecimal() or not (minor or "0").isdecimal():
        return "unset"
    version = (int(major), int(minor or "0"))
    if version < (0, 10):
        return "older"
    return "affected" if version < (0, 12) else "newer"


def _flags(arguments: Sequence[str]) -> Iterator[tuple[str, str]]:
    """Yield each flag with its value, as far as Go's parser reads."""
    at = 0
    while at < len(arguments):
        argument, following = arguments[at], arguments[at + 1 : at + 2]
        name, equals, value = argument.removeprefix("-").removeprefix("-").partition("=")
        if argument[:1] != "-" or not name or name[0] == "-":
            return
        at += 1
        if equals:
            yield name, value
        elif name in _BOOLEANS or (name not in _VALUED and (not following or following[0].startswith("-"))):
            yield name, "true"
        elif not following:
            return
        else:
            yield name, following[0]
            at += 1
