"""The command line, for people: typer takes the options of every command but `run`.

What stands behind `run` is the phase's and never passes through here: a parser of options turned
`-log-level debug` into `-log-leel`.
"""

from __future__ import annotations

import os
import signal
import sys
from typing import Annotated

import typer

from shim import __version__, settings
from shim.call import Call
from shim.errors import ShimError, WrongUse
from shim.log import plain

app = typer.Typer(
    name="analyzed-shim",
    help="Keep run-image.reference valid for the daemon at Platform API 0.10 and 0.11 of Cloud Native Buildpacks.",
    invoke_without_command=True,
    add_completion=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 80},
)


def _option(name: str, text: str, metavar: str | None = None, *flags: str) -> object:
    variable = settings.VARIABLES.get(name, name)
    return typer.Option(*flags or (f"--{name}",), help=f"{text} [{variable}]", metavar=metavar, show_default=False)


_Daemon = Annotated[bool | None, _option("daemon", "The build exports to a daemon.", None, "--daemon/--no-daemon")]
_Host = Annotated[str | None, _option("docker-host", "The daemon; else unix:///var/run/docker.sock.", "ADDRESS")]
_CliHost = Annotated[str | None, _option("docker-host", "The daemon; else the docker CLI's.", "ADDRESS")]
_Timeout = Annotated[str | None, _option("timeout", "How long the daemon may take for an answer; else 10.", "SECONDS")]
_Report = Annotated[str | None, _option("report", "Write a JSON report; {phase} in its name is the phase.", "FILE")]
_Strict = Annotated[bool | None, _option("strict", "Exit with 81 if not repaired.", None, "--strict/--no-strict")]
_Layers = Annotated[str | None, _option("CNB_LAYERS_DIR", "The layers directory; else /layers.", "DIR", "--layers")]
_Analyzed = Annotated[str | None, _option("CNB_ANALYZED_PATH", "Else in the layers directory.", "FILE", "--analyzed")]
_Api = Annotated[str | None, _option("CNB_PLATFORM_API", "The Platform API.", "API", "--platform-api")]
_Directory = Annotated[str, typer.Argument(help="A lifecycle directory, such as /cnb/lifecycle.", metavar="DIR")]
_Version = Annotated[bool, typer.Option("--version", help="Show the version and exit.")]
_Words = Annotated[list[str], typer.Argument(metavar="-- [LAUNCHER]... PHASE [ARG]...", hidden=True)]
_Phase = Annotated[str | None, typer.Option(help="What the first word is, if no word is a phase.", metavar="PHASE")]
_DryRun = Annotated[bool, typer.Option("--dry-run", help="Show the difference, and write nothing.")]
_Lifecycle = Annotated[str, typer.Option(help="The directory of the phases.", metavar="DIR")]
_Image = Annotated[str | None, typer.Option(help="A builder or lifecycle image to check instead.", metavar="IMAGE")]
_From = Annotated[str, typer.Argument(help="A builder or lifecycle image.", metavar="IMAGE")]
_Tag = Annotated[str, typer.Option(help="The name of the copy.", metavar="NAME")]
_Push = Annotated[bool, typer.Option("--push", help="Push the copy: platforms pull builders.")]


@app.callback()
def _options(context: typer.Context, version: _Version = False) -> None:
    if version:
        print(f"analyzed-shim {__version__}")
        raise typer.Exit
    if context.invoked_subcommand is None:
        print(context.get_help())


@app.command(context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
def run(
    words: _Words,
    daemon: _Daemon = None,
    docker_host: _Host = None,
    timeout: _Timeout = None,
    report: _Report = None,
    strict: _Strict = None,
    phase: _Phase = None,
) -> None:
    """Run a lifecycle phase and keep its run image reference valid for the daemon.

    The phase is the first program whose name is a phase's; a launcher may stand before it. Its
    arguments reach it unchanged, and its exit status is the command's.

    Example: analyzed-shim run -- /cnb/lifecycle/restorer -layers /layers
    """
    raise WrongUse("no option can stand before run", "analyzed-shim run [OPTIONS] -- PHASE [ARG]...")


def _call(phase: str, layers: str | None, analyzed: str | None, platform_api: str | None = None) -> Call:
    """Return a phase's call that says where the files are, without a phase to run."""
    flags = [f"-{name}={value}" for name, value in (("layers", layers), ("analyzed", analyzed)) if value]
    environ = {**os.environ, **({"CNB_PLATFORM_API": platform_api} if platform_api else {})}
    return Call([phase, *flags], 0, phase, environ)


def _settings(**options: object) -> settings.Settings:
    """Read the options that were given as `run` reads its own."""
    given = {name.replace("_", "-"): str(value) for name, value in options.items() if value is not None}
    return settings.read(given, os.environ)


@app.command("snapshot")
def keep(layers: _Layers = None, analyzed: _Analyzed = None) -> None:
    """Keep a copy of analyzed.toml for fix, before a restorer that can't be wrapped.

    Example: analyzed-shim snapshot --layers /layers
    """
    from shim import fix

    print(f"kept {fix.snapshot(_call('exporter', layers, analyzed))}")


@app.command("fix")
def repair(
    layers: _Layers = None,
    analyzed: _Analyzed = None,
    platform_api: _Api = None,
    daemon: _Daemon = None,
    docker_host: _Host = None,
    timeout: _Timeout = None,
    report: _Report = None,
    strict: _Strict = None,
    dry_run: _DryRun = False,
) -> None:
    """Repair run-image.reference between the restorer and the export.

    Run it after a restorer and before an exporter that can't be wrapped.

    Example: analyzed-shim fix --daemon --layers /layers
    """
    from shim import fix

    chosen = _settings(daemon=daemon, docker_host=docker_host, timeout=timeout, report=report, strict=strict)
    fix.fix(_call("exporter", layers, analyzed, platform_api), chosen, dry_run)


@app.command("check")
def look(
    layers: _Layers = None,
    analyzed: _Analyzed = None,
    platform_api: _Api = None,
    daemon: _Daemon = None,
    docker_host: _Host = None,
    timeout: _Timeout = None,
    lifecycle: _Lifecycle = "/cnb/lifecycle",
    image: _Image = None,
) -> None:
    """Say what would happen to this build and why. Changes nothing.

    Run it after the detector and before the restorer, or after a failed export.

    Example: analyzed-shim check --image registry.example/builder
    """
    if image is not None:
        from shim import image as images

        lines = images.check_image(image, docker_host, _tell)
    else:
        from shim import check

        chosen = _settings(daemon=daemon, docker_host=docker_host, timeout=timeout)
        lines = check.check(_call("restorer", layers, analyzed, platform_api), chosen, lifecycle)
    print("\n".join(plain(line, 2000) for line in lines))


@app.command("install")
def put_in(directory: _Directory) -> None:
    """Install the drop-ins, with an interpreter of their own, in a lifecycle directory.

    Example: analyzed-shim install /cnb/lifecycle
    """
    from shim import install

    install.install(directory)
    print(f"installed the drop-ins in {directory}")


@app.command("uninstall")
def take_out(directory: _Directory) -> None:
    """Remove the drop-ins from a lifecycle directory.

    Example: analyzed-shim uninstall /cnb/lifecycle
    """
    from shim import install

    install.uninstall(directory)
    print(f"removed the drop-ins from {directory}")


@app.command("builder")
def derive(image: _From, tag: _Tag, push: _Push = False, docker_host: _CliHost = None) -> None:
    """Copy a builder or lifecycle image and install the shim in it.

    Example: analyzed-shim builder registry.example/builder --tag registry.example/builder-shim --push
    """
    from shim import image as images

    print(images.builder(image, tag, push, docker_host, _tell))


@app.command("demo")
def play() -> None:
    """Play the whole story with an embedded daemon and registry, and a stand-in lifecycle.

    Example: analyzed-shim demo
    """
    from shim.demo import story

    raise typer.Exit(story.play())


def _tell(line: str) -> None:
    print(f"analyzed-shim: {plain(line, 2000)}", file=sys.stderr, flush=True)


def main() -> int:
    """Run the command line, and return its exit code. Each error ends in one line on stderr."""
    for stream in filter(None, (sys.stdout, sys.stderr)):
        stream.reconfigure(errors="backslashreplace")  # any encoding will do
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup stays nohup; temporary files and containers don't
            signal.signal(number, lambda number, _: sys.exit(128 + number))
    try:
        code = app(standalone_mode=False)
        if sys.stdout:
            sys.stdout.flush()
        return code if isinstance(code, int) else 0
    except ShimError as problem:
        _tell(problem.with_tip)
        return problem.exit_code
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except OSError as problem:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is buffered yet mustn't fail once more
        if not isinstance(problem, BrokenPipeError):  # its reader left
            _tell(f"{problem.filename or 'the output'} can't be used: {problem.strerror}")
        return 1
    except Exception as problem:
        usage = getattr(problem, "format_message", None)  # click's errors, in whatever package typer keeps them
        if usage is None:
            raise
        _tell(f"{usage()} (--help lists what there is)")
        return WrongUse.exit_code
