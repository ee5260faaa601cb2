"""The shim's own options and their environment, the same everywhere they make sense."""

from __future__ import annotations

from shim.errors import WrongUse
from shim.record import Record, boolean, environment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from shim.policy.facts import PullPolicy

PULL_POLICIES: tuple[PullPolicy, ...] = ("never", "if-not-present", "always")
TIMEOUT = 5.0
"""Seconds that the daemon's answers may take, all together."""
HELP = {
    "daemon": "Declare that this build exports to a daemon (or that it doesn't).",
    "pull-policy": "When the daemon pulls the run image: never, if-not-present or always. Declares a daemon build.",
    "docker-host": "The daemon's address; else unix:///var/run/docker.sock, as for the lifecycle.",
    "timeout": "Overall limit in seconds for querying the daemon. Pulls are not limited.",
    "report": "Write a JSON report to this file; {phase} in its name stands for the phase.",
    "strict": "Exit with 81 if something can't be repaired, instead of going on.",
}
VARIABLES = {
    "daemon": "ANALYZED_SHIM_DAEMON",
    "pull-policy": "ANALYZED_SHIM_PULL_POLICY",
    "docker-host": "DOCKER_HOST",
    "timeout": "ANALYZED_SHIM_TIMEOUT",
    "report": "ANALYZED_SHIM_REPORT",
    "strict": "ANALYZED_SHIM_STRICT",
}
_VALUED = ("pull-policy", "docker-host", "timeout", "report")
_HELP = "analyzed-shim run --help lists the options"


class Settings(Record):
    """What the user chose."""

    daemon: bool | None = None
    policy: PullPolicy | None = None
    docker_host: str | None = None
    timeout: float = TIMEOUT
    report: str | None = None
    strict: bool = False


def split(arguments: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Return the shim's options at the front of `run`'s arguments, and the rest, which is the phase's.

    Raises:
        WrongUse: an unknown option.

    """
    options: dict[str, str] = {}
    rest = list(arguments)
    while rest and rest[0].startswith("-"):
        argument = rest.pop(0)
        if argument == "--":
            break
        name, equals, value = argument.removeprefix("--").partition("=")
        if argument.startswith("--") and name in _VALUED:
            if not equals and not rest:
                raise WrongUse(f"{argument} needs a value", _HELP)
            options[name] = value if equals else rest.pop(0)
        elif argument in ("--daemon", "--strict", "--no-daemon", "--no-strict"):
            options[name.removeprefix("no-")] = "false" if name.startswith("no-") else "true"
        else:
            raise WrongUse(f"unknown option {argument}", _HELP)
    return options, rest


def read(options: Mapping[str, str], environ: Mapping[str, str], only_report: bool = False) -> Settings:
    """Combine options with the environment; an option wins.

    Args:
        options: the values of the options that were given, by name.
        environ: the environment.
        only_report: read no variable but the report's: a bad one must not fail a build that the shim has nothing
            to do with.

    Raises:
        WrongUse: a bad value; the message names the option or the variable.

    """

    def value(name: str) -> tuple[str | None, str]:
        if name in options:
            return options[name], f"--{name}"
        if only_report and name != "report":
            return None, ""
        return environment(environ, VARIABLES[name]), VARIABLES[name]

    def flag(name: str) -> bool | None:
        text, source = value(name)
        read = None if text is None else boolean(text)
        if text is not None and read is None:
            raise WrongUse(f"{source} is {text!r}", "it takes true or false")
        return read

    policy, source = value("pull-policy")
    chosen = next((known for known in PULL_POLICIES if known == policy), None)
    if policy is not None and chosen is None:
        raise WrongUse(f"{source} is {policy!r}", f"it takes {', '.join(PULL_POLICIES)}")
    text, source = value("timeout")
    try:
        timeout = TIMEOUT if text is None else float(text)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < 1e6:
        raise WrongUse(f"{source} is {text!r}", "it takes a number of seconds, such as 5")
    return Settings(
        daemon=flag("daemon"),
        policy=chosen,
        docker_host=value("docker-host")[0],
        timeout=timeout,
        report=value("report")[0],
        strict=flag("strict") or False,
    )
