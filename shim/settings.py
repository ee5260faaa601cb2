"""The shim's own options and their environment, the same everywhere they make sense."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from shim.errors import WrongUse
from shim.log import FALSE, TRUE

VARIABLES = {
    "daemon": "ANALYZED_SHIM_DAEMON",
    "docker-host": "DOCKER_HOST",
    "timeout": "ANALYZED_SHIM_TIMEOUT",
    "report": "ANALYZED_SHIM_REPORT",
    "strict": "ANALYZED_SHIM_STRICT",
}


class Settings(NamedTuple):
    """What the user chose."""

    daemon: bool | None = None
    docker_host: str = ""
    timeout: float = 10.0
    """Seconds."""
    report: str = ""
    strict: bool = False


def read(options: Mapping[str, str], environ: Mapping[str, str]) -> Settings:
    """Combine options, by their names, with the environment; an option wins.

    Raises WrongUse: a bad value; the message names the option or the variable.
    """

    def value(name: str) -> tuple[str, str]:
        if name in options:
            return options[name], f"--{name}"
        return environ.get(VARIABLES[name], ""), VARIABLES[name]

    def boolean(name: str) -> bool | None:
        text, source = value(name)
        if text and text not in TRUE + FALSE:
            raise WrongUse(f"{source} is {text!r}", "it takes true or false")
        return text in TRUE if text else None

    text, source = value("timeout")
    try:
        timeout = float(text or 10)
    except ValueError:
        timeout = 0.0
    if not 0 < timeout < 1e6:
        raise WrongUse(f"{source} is {text!r}", "it takes a number of seconds, such as 10")
    return Settings(
        daemon=boolean("daemon"),
        docker_host=options.get("docker-host", ""),
        timeout=timeout,
        report=value("report")[0],
        strict=boolean("strict") or False,
    )
