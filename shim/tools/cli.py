"""The command line, for people: typer shows the help and takes the options of every verb but `run`.

What stands behind `run` is the phase's and never passes through here: a parser of options turned
`-log-level debug` into `-log-leel`.
"""

from __future__ import annotations

import errno
import os
import signal
import sys
from typing import TYPE_CHECKING, Annotated

import typer

from shim import __version__
from shim.errors import ShimError, WrongUse
from shim.phase import invocation, settings
from shim.record import boolean

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

    from shim.daemon import containers
    from shim.phase.invocation import Invocation
    from shim.phase.settings import Settings

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


def _option(name: str, *flags: str, callback: Callable[..., bool | None] | None = None) -> object:
    return typer.Option(
        *flags, envvar=settings.VARIABLES[name], help=settings.HELP[name], show_default=False, callback=callback
    )


def _as_run_reads_it(context: typer.Context, option: typer.CallbackParam, value: bool | None) -> bool | None:
    """Refuse words in a variable that typer takes for a boolean, and `run` and the lifecycle don't."""
    source = context.get_parameter_source(str(option.name))
    text = os.environ.get(str(option.envvar), "")
    if source is not None and source.name == "ENVIRONMENT" and boolean(text) is None:
        raise WrongUse(f"{option.envvar} is {text!r}", "it takes true or false")
    return value


_Daemon = Annotated[bool | None, _option("daemon", "--daemon/--no-daemon", callback=_as_run_reads_it)]
_Policy = Annotated[str | None, _option("pull-policy", "--pull-policy")]
_Host = Annotated[str | None, _option("docker-host", "--docker-host")]
_Timeout = Annotated[float | None, _option("timeout", "--timeout")]
_Strict = Annotated[bool | None, _option("strict", "--strict/--no-strict", callback=_as_run_reads_it)]
_Layers = Annotated[
    str | None, typer.Option("--layers", envvar="CNB_LAYERS_DIR", help="The layers directory; else /layers.")
]
_Analyzed = Annotated[
    str | None,
    typer.Option("--analyzed", envvar="CNB_ANALYZED_PATH", help="analyzed.toml; else in the layers directory."),
]
_Group = Annotated[
    str | None, typer.Option("--group", envvar="CNB_GROUP_PATH", help="group.toml; else in the layers directory.")
]
_DockerHost = Annotated[
    str | None,
    typer.Option("--docker-host", envvar="DOCKER_HOST", help="The daemon; else the one that the docker CLI would use."),
]
_Bundle = Annotated[
    str | None,
    typer.Option("--bundle", envvar="ANALYZED_SHIM_BUNDLE", help="A bundle; else one is made and kept in your cache."),
]
_Api = Annotated[str | None, typer.Option("--platform-api", envvar="CNB_PLATFORM_API", help="The Platform API.")]


@app.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False},
    options_metavar="[OPTIONS] --",
)
def run(
    phase: Annotated[str, typer.Argument(help="The real analyzer, restorer or exporter.", show_default=False)],
    daemon: _Daemon = None,
    pull_policy: _Policy = None,
    docker_host: _Host = None,
    timeout: _Timeout = None,
    report: Annotated[str | None, _option("report", "--report")] = None,
    strict: _Strict = None,
    arguments: Annotated[list[str] | None, typer.Argument(metavar="[ARG]...", help="All the phase's own.")] = None,
) -> None:
    """Run a lifecycle phase and keep its run image reference valid for the daemon.

    The phase is the first argument whose base name is that of a phase; a launcher may stand before
    it. Without such a name the first argument is taken for the restorer. All arguments reach the
    phase as they are, and its exit status is the command's.

    Example: analyzed-shim run -- /cnb/lifecycle/restorer -layers /layers
    """
    raise WrongUse("no option can stand before run", "analyzed-shim run [OPTIONS] -- PHASE [ARG]...")


def _call(phase: str, platform_api: str | None, **flags: str | None) -> invocation.Invocation:
    """Return a phase's call that says where the files are, without a phase to run."""
    arguments = [part for flag, value in flags.items() if value is not None for part in (f"-{flag}", value)]
    environ = {**os.environ, "CNB_PLATFORM_API": platform_api or ""}
    return invocation.read([phase, *arguments], environ)


def _settings(**options: object) -> settings.Settings:
    """Read the options that were given as `run` reads its own."""
    texts = {
        name.replace("_", "-"): str(value).lower() if isinstance(value, bool) else str(value)
        for name, value in options.items()
        if value is not None
    }
    return settings.read(texts, {})


@app.command()
def snapshot(
    layers: _Layers = None,
    analyzed: _Analyzed = None,
    to: Annotated[str | None, typer.Option("--to", help="Where to keep it; else beside analyzed.toml.")] = None,
) -> None:
    """Keep a copy of analyzed.toml, before a restorer that can't be wrapped; fix compares with it and removes it."""
    from shim.tools import fix

    call = _call("restorer", None, layers=layers, analyzed=analyzed)
    fix.snapshot(call, to or fix.default_snapshot(call.analyzed))


@app.command(name="fix")
def repair(
    layers: _Layers = None,
    analyzed: _Analyzed = None,
    platform_api: _Api = None,
    snapshot_: Annotated[
        str | None, typer.Option("--from", help="The snapshot, if it isn't beside analyzed.toml.")
    ] = None,
    daemon: _Daemon = None,
    pull_policy: _Policy = None,
    docker_host: _Host = None,
    timeout: _Timeout = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and change nothing.")] = False,
    diff: Annotated[bool, typer.Option("--diff", help="Show the change on stdout.")] = False,
    exit_code: Annotated[
        bool, typer.Option("--exit-code", help="Exit 1 if something was changed or would be, as git diff does.")
    ] = False,
    report: Annotated[
        str | None,
        typer.Option("--report", envvar="ANALYZED_SHIM_REPORT", help="Write JSON to this file; - is stdout."),
    ] = None,
    strict: _Strict = None,
) -> None:
    """Repair run-image.reference, between a restorer that couldn't be wrapped and the export.

    Refuses a build that is known to be for a registry, and one of which nothing is known. It never
    pulls. A script that can change its export line doesn't need it:
    analyzed-shim run -- /cnb/lifecycle/exporter ...
    """
    from shim.tools import fix

    call = _call("exporter", platform_api, layers=layers, analyzed=analyzed)
    chosen = _settings(
        daemon=daemon, pull_policy=pull_policy, docker_host=docker_host, timeout=timeout, report=report, strict=strict
    )
    choices = fix.Choices(
        snapshot=snapshot_ or fix.default_snapshot(call.analyzed), dry_run=dry_run, diff=diff, exit_code=exit_code
    )
    raise typer.Exit(fix.fix(call, chosen, choices))


@app.command()
def check(
    layers: _Layers = None,
    analyzed: _Analyzed = None,
    group: _Group = None,
    platform_api: _Api = None,
    lifecycle: Annotated[str, typer.Option("--lifecycle", help="The directory of the phases.")] = "/cnb/lifecycle",
    daemon: _Daemon = None,
    pull_policy: _Policy = None,
    docker_host: _Host = None,
    timeout: _Timeout = None,
    registry: Annotated[
        bool, typer.Option("--registry", help="Ask the registry too, through the daemon, what it has under the name.")
    ] = False,
    image: Annotated[
        str | None,
        typer.Option("--image", help="Check a builder or lifecycle image instead, in your docker CLI's daemon."),
    ] = None,
    json: Annotated[bool, typer.Option("--json", help="Print JSON instead of lines.")] = False,
) -> None:
    """Say what would happen to this analyzed.toml and why, and what is wrong with the set-up. Changes nothing.

    Between the detector and the restorer is the time for it. With --image: whether the builds of a
    builder or lifecycle image are affected, by which platforms, and whether the shim is in it.
    """
    values, lines = (
        _checked_image(image, docker_host, timeout)
        if image is not None
        else _checked_build(
            _call("restorer", platform_api, layers=layers, analyzed=analyzed, group=group),
            _settings(daemon=daemon, pull_policy=pull_policy, docker_host=docker_host, timeout=timeout),
            lifecycle,
            registry,
        )
    )
    if json:
        from json import dumps

        print(dumps(values, indent=1))
    else:
        print("\n".join(lines))


def _checked_build(
    call: Invocation, chosen: Settings, lifecycle: str, registry: bool
) -> tuple[dict[str, object], list[str]]:
    from shim.tools import check as checking

    checked = checking.check(call, chosen, lifecycle, registry)
    return checked.as_values(), checking.lines_of(checked)


def _checked_image(name: str, docker_host: str | None, timeout: float | None) -> tuple[dict[str, object], list[str]]:
    from shim.tools import image as checking

    checked = checking.check_image(_user_s_daemon(docker_host, timeout), name)
    return checked.as_values(), checking.lines_of(checked)


def _user_s_daemon(docker_host: str | None, timeout: float | None) -> containers.Daemon:
    """Return the daemon that the docker CLI would use; images take longer than a build's questions."""
    from shim.daemon import containers

    chosen = _settings(docker_host=docker_host, timeout=timeout)
    return containers.Daemon(chosen.docker_host, max(chosen.timeout, 60), os.environ, _warn)


def _tell(line: str) -> None:
    print(f"analyzed-shim: {line}", file=sys.stderr)


def _warn(line: str) -> None:
    _tell(f"Warning: {line}")


def _own_bundle() -> str:
    from shim.tools import bundle

    return str(bundle.cached(os.environ, _tell))


@app.command(name="bundle")
def make_bundle(
    directory: Annotated[str, typer.Argument(help="A directory that does not exist yet.", show_default=False)],
    whole: Annotated[
        bool, typer.Option("--whole", help="With all commands and their dependencies, for an image of its own.")
    ] = False,
) -> None:
    """Make a self-contained bundle of the shim and the Python that runs this."""
    from shim.tools import bundle

    print(bundle.describe(bundle.make(directory, whole=whole)))


@app.command()
def install(
    directory: Annotated[str, typer.Argument(help="A lifecycle directory.", show_default=False)],
    bundle: _Bundle = None,
    at: Annotated[
        str | None, typer.Option("--at", help="Where the directory will be when the phases run; else where it is.")
    ] = None,
) -> None:
    """Install the drop-ins into a lifecycle directory, with all that they need inside it."""
    from shim.tools import install as bundling

    bundling.install(directory, bundle or _own_bundle(), at)


@app.command()
def uninstall(
    directory: Annotated[str, typer.Argument(help="A lifecycle directory.", show_default=False)],
) -> None:
    """Remove the drop-ins; the directory is as it was before."""
    from shim.tools import install as bundling

    bundling.uninstall(directory)


@app.command()
def builder(
    image: Annotated[str, typer.Argument(help="A builder or lifecycle image.", show_default=False)],
    tag: Annotated[str, typer.Option("--tag", help="The name of the derived image.", show_default=False)],
    bundle: _Bundle = None,
    env: Annotated[
        list[str] | None, typer.Option("--env", help="A setting to bake in, such as ANALYZED_SHIM_PULL_POLICY=never.")
    ] = None,
    push: Annotated[
        bool, typer.Option("--push", help="Push it: platforms pull builders and lifecycle images.")
    ] = False,
    platform: Annotated[
        str | None, typer.Option("--platform", help="Of an image index, such as linux/arm64; else the bundle's.")
    ] = None,
    only_print: Annotated[bool, typer.Option("--print", help="Show what would be done, and do nothing.")] = False,
    docker_host: _DockerHost = None,
    timeout: _Timeout = None,
) -> None:
    """Copy a builder or lifecycle image and install the shim in it."""
    from shim.tools import derive as deriving

    for setting in env or ():
        if "=" not in setting:
            raise WrongUse(f"--env {setting} has no value", f"--env {setting}=VALUE")
    wanted = deriving.Derived(
        image=image,
        tag=tag,
        bundle=bundle or ("(made for it)" if only_print else _own_bundle()),
        environment=dict(setting.partition("=")[::2] for setting in env or ()),
        push=push,
        platform=platform,
    )
    if only_print:
        print("\n".join(deriving.steps(wanted)))
        return
    image_id = deriving.derive(_user_s_daemon(docker_host, timeout), wanted, _tell)
    print(f"{tag} is {image_id}")


@app.command()
def demo(
    docker: Annotated[bool, typer.Option("--docker", help="Use your own daemon, and clean up afterwards.")] = False,
) -> None:
    """Show what fails and what the shim does about it, on a machine that has nothing but Python."""
    try:
        from shim.demo import story
    except ModuleNotFoundError:
        raise WrongUse("demo is not in this image", "pipx install analyzed-shim has it") from None

    raise typer.Exit(story.play(docker))


def _end(number: int, _: object) -> NoReturn:
    raise SystemExit(128 + number)  # so that what lies in a temporary directory or in a daemon is cleared away


def main() -> int:
    """Run the command line, and return its exit code."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_DFL:  # nohup stays nohup
            signal.signal(number, _end)
    try:
        code = app(standalone_mode=False)
        if sys.stdout:  # it may be closed
            sys.stdout.flush()
    except ShimError as problem:
        tip = f" ({problem.tip})" if problem.tip else ""
        print(f"analyzed-shim: ERROR: {problem}{tip}", file=sys.stderr)
        return problem.exit_code
    except typer.Exit as end:
        return end.exit_code
    except typer.Abort:
        return 130
    except OSError as problem:  # what nobody below has put in words, such as stdout on a full disk
        full = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO)
        nameless = {errno.ENOENT: "the working directory", **dict.fromkeys(full, "the output can't be written")}
        where = problem.filename or nameless.get(problem.errno or 0)
        if not isinstance(problem, BrokenPipeError):  # its reader has seen enough
            said = ("analyzed-shim: ERROR", where, problem.strerror or problem)
            print(": ".join(str(part) for part in said if part), file=sys.stderr)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # what is buffered yet mustn't fail once more
        return 1
    except Exception as problem:
        show = getattr(problem, "show", None)  # click's usage errors, in whatever package typer keeps them
        if show is None:
            raise
        show()
        return 64
    return code if isinstance(code, int) else 0
