"""The command line, for people: typer shows the help and takes the options of every verb but `run`.

What stands behind `run` is the phase's and never passes through here: a parser of options turned
`-log-level debug` into `-log-leel`.
"""

from __future__ import annotations

import sys
from typing import Annotated

import typer

from shim import __version__, settings
from shim.errors import ShimError, WrongUse

app = typer.Typer(
    name="analyzed-shim",
    help="Keep a daemon build's run image in the daemon, at Platform API 0.10 and 0.11 of Cloud Native Buildpacks.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"analyzed-shim {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Show the version and exit.")
    ] = False,
) -> None:
    pass


def _option(name: str, *flags: str) -> object:
    return typer.Option(*flags, envvar=settings.VARIABLES[name], help=settings.HELP[name], show_default=False)


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
def run(
    phase: Annotated[str, typer.Argument(help="The real analyzer, restorer or exporter.", show_default=False)],
    daemon: Annotated[bool | None, _option("daemon", "--daemon/--no-daemon")] = None,
    pull_policy: Annotated[str | None, _option("pull-policy", "--pull-policy")] = None,
    docker_host: Annotated[str | None, _option("docker-host", "--docker-host")] = None,
    timeout: Annotated[float | None, _option("timeout", "--timeout")] = None,
    report: Annotated[str | None, _option("report", "--report")] = None,
    strict: Annotated[bool | None, _option("strict", "--strict/--no-strict")] = None,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARG]...", help="All the phase's own.")] = None,
) -> None:
    """Wrap a phase: run it, or become it, and keep the run image in the daemon.

    The phase's base name says which one it is; anything that is no phase is taken for the
    restorer. Everything behind it reaches the phase as it stands, and its exit code is ours.

    Example: analyzed-shim run -- /cnb/lifecycle/restorer -layers /layers
    """
    raise WrongUse("no option can stand before run", "analyzed-shim run [OPTIONS] -- PHASE [ARG]...")


@app.command()
def demo(
    docker: Annotated[bool, typer.Option("--docker", help="Use your own daemon, and clean up afterwards.")] = False,
) -> None:
    """Play what goes wrong and what the shim does about it, on a machine that has nothing but Python."""
    from shim.demo import story

    raise typer.Exit(story.play(docker))


def main() -> int:
    """Run the command line, and return its exit code."""
    try:
        code = app(standalone_mode=False)
    except ShimError as problem:
        print(f"analyzed-shim: ERROR: {problem} ({problem.tip})", file=sys.stderr)
        return problem.exit_code
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        return 130
    except Exception as problem:
        show = getattr(problem, "show", None)  # click's usage errors, in whatever package typer keeps them
        if show is None:
            raise
        show()
        return 64
    return code if isinstance(code, int) else 0
