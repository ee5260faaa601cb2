"""A phase's flags and environment, and the shim's own, read as they stand."""

from __future__ import annotations

import os

import pytest

from shim.errors import WrongUse
from shim.phase import invocation, settings
from shim.phase.handover import with_group
from shim.phase.invocation import Invocation
from shim.policy.facts import kind_of
from shim.record import Record, boolean
from tests.support.layers import ID


def read(*arguments: str, **environ: str) -> Invocation:
    return invocation.read(arguments, environ)


@pytest.mark.parametrize(
    ("program", "phase", "named"),
    [
        ("analyzer", "analyzer", True),
        ("/cnb/lifecycle/restorer", "restorer", True),
        ("/cnb/lifecycle/exporter.real", "exporter", True),
        ("detector", "other", True),
        ("/x/builder", "other", True),
        ("creator", "other", True),
        ("extender", "other", True),
        ("rebaser", "other", True),
        ("my-restorer.sh", "restorer", False),
        ("sh", "restorer", False),
        ("", "restorer", False),
    ],
)
def test_the_base_name_says_which_phase_it_is(program: str, phase: str, named: bool) -> None:
    call = read(program, "-layers", "/l")
    assert (call.phase, call.named, call.launched, call.layers) == (phase, named, False, "/l")


@pytest.mark.parametrize(
    ("subcommand", "phase"),
    [
        ("analyze", "analyzer"),
        ("restore", "restorer"),
        ("export", "exporter"),
        ("detect", "other"),
        ("create", "other"),
    ],
)
def test_the_lifecycle_by_its_own_name_has_subcommands(subcommand: str, phase: str) -> None:
    call = read("/cnb/lifecycle/lifecycle", subcommand, "-layers", "/l")
    assert (call.phase, call.layers) == (phase, "/l")
    assert with_group(call, "/g")[:3] == ("/cnb/lifecycle/lifecycle", subcommand, "-group=/g")
    behind = read("env", "A=b", "lifecycle", subcommand, "-layers", "/l")
    assert (behind.phase, behind.layers, behind.launched) == (phase, "/l", True)


@pytest.mark.parametrize("arguments", [(), ("-version",), ("-v",), ("other",)])
def test_the_lifecycle_without_a_subcommand_is_no_phase_that_is_wrapped(arguments: tuple[str, ...]) -> None:
    assert read("/cnb/lifecycle/lifecycle", *arguments).phase == "other"


PHASE = ("/cnb/lifecycle/restorer", "-layers", "/l")


@pytest.mark.parametrize(
    "launcher",
    [
        ("env", "A=b"),
        ("env", "-i", "PATH=/bin", "--"),
        ("env", "RESTORER=/cnb/lifecycle/restorer"),
        ("nice", "-n", "1"),
        ("nice", "-19"),
        ("timeout", "60"),
        ("timeout", "--signal=INT", "--kill-after", "5", "60"),
        ("tini", "-s", "--"),
        ("tini", "-g", "-p", "SIGTERM", "--"),
        ("dumb-init", "-v"),
        ("catatonit", "--"),
        ("setpriv", "--reuid=1000", "--clear-groups"),
        ("setsid", "--wait"),
        ("gosu", "1000:1000"),
        ("chroot", "/"),
        ("bash", "-c", 'exec "$@"', "--"),
        ("sh", "-euc", '"$@"', "sh"),
        ("busybox", "time"),
        ("strace", "-f", "-o", "/tmp/restorer.log"),
        ("wait-launcher", "builder", "--"),
        ("flock", "/builder"),
        ("env", "A=b", "nice", "timeout", "60", "tini", "-s", "--"),
        ("/usr/bin/env", "--"),
        ("stdbuf", "-oL"),
        ("numactl", "--cpunodebind=0"),
        ("my-launcher", "HOST", "--"),
    ],
    ids=" ".join,
)
@pytest.mark.parametrize("phase", ["analyzer", "restorer", "exporter"])
def test_a_launcher_stands_before_the_phase_and_stays_as_it_is(launcher: tuple[str, ...], phase: str) -> None:
    program = f"/cnb/lifecycle/{phase}"
    arguments = (*launcher, program, "-daemon", "-layers", "/l", "app")
    call = invocation.read(arguments, {}, lambda argument: argument in (launcher[0], program))
    assert (call.phase, call.named, call.launched, call.program) == (phase, True, True, launcher[0])
    assert call.flags == {"daemon": "true", "layers": "/l"}
    assert call.argv == arguments
    assert with_group(call, "/g") == (*launcher, program, "-group=/g", "-daemon", "-layers", "/l", "app")


def test_without_a_program_that_can_be_run_the_first_name_of_a_phase_counts() -> None:
    call = invocation.read(["docker", "exec", "it", "restorer", "-layers", "/l"], {}, lambda _: False)
    assert (call.phase, call.named, call.layers) == ("restorer", False, "/l")


@pytest.mark.parametrize(
    ("launcher", "api"),
    [
        ((), "0.11"),
        (("env",), "0.11"),
        (("env", "CNB_PLATFORM_API=0.12"), "0.12"),
        (("env", "A=b", "CNB_PLATFORM_API=0.12", "nice"), "0.12"),
        (("env", "-i"), ""),
        (("env", "-"), ""),
        (("env", "-i", "CNB_PLATFORM_API=0.12"), "0.12"),
        (("env", "-C", "/x", "CNB_PLATFORM_API=0.12"), "0.12"),
        (("env", "-u", "A", "--chdir", "/x", "CNB_PLATFORM_API=0.12"), "0.12"),
        (("env", "A=/bin/env", "nice", "CNB_PLATFORM_API=0.12"), "0.11"),
        (("env", "-u", "CNB_PLATFORM_API"), ""),
        (("env", "-uCNB_PLATFORM_API"), ""),
        (("env", "--unset=CNB_PLATFORM_API"), ""),
        (("env", "--", "CNB_PLATFORM_API=0.10"), "0.10"),
        (("nice", "/usr/bin/env", "CNB_PLATFORM_API=0.12"), "0.12"),
        (("env", "CNB_PLATFORM_API=0.12", "env", "CNB_PLATFORM_API=0.10"), "0.10"),
        (("sh", "-c", "CNB_PLATFORM_API=0.12", "--"), "0.11"),
    ],
)
def test_the_environment_is_the_one_behind_env(launcher: tuple[str, ...], api: str) -> None:
    call = read(*launcher, *PHASE, CNB_PLATFORM_API="0.11")
    assert (call.platform_api, call.layers) == (api, "/l")
    assert call.environ == {"CNB_PLATFORM_API": "0.11"}


@pytest.mark.parametrize(
    ("launcher", "root"),
    [
        ((), "/"),
        (("chroot", "/"), "/"),
        (("chroot", "/newroot"), "/newroot"),
        (("/usr/sbin/chroot", "--userspec=1000:1000", "/newroot"), "/newroot"),
        (("nice", "chroot", "/newroot", "env"), "/newroot"),
        (("env", "A=/sbin/chroot", "nice"), "/"),
    ],
)
def test_the_root_is_the_one_behind_chroot(launcher: tuple[str, ...], root: str) -> None:
    assert read(*launcher, *PHASE).root == root


@pytest.mark.parametrize(
    ("launcher", "layers"),
    [
        (("env", "A=b"), "l"),
        (("env", "-C", "/x", "A=b"), "/x/l"),
        (("env", "-C/x"), "/x/l"),
        (("env", "--chdir=/x"), "/x/l"),
        (("env", "--chdir", "x"), f"{os.getcwd()}/x/l"),
        (("env", "-C", "/x", "nice", "env", "-C", "y"), "/x/y/l"),
        (("chroot", "/"), "/l"),
        (("chroot", "--skip-chdir", "/"), "l"),
        (("chroot", "/", "env", "-C", "x"), "/x/l"),
    ],
)
def test_relative_paths_begin_where_a_launcher_goes(launcher: tuple[str, ...], layers: str) -> None:
    call = read(*launcher, PHASE[0], "-layers", "l", CNB_ANALYZED_PATH="/a.toml")
    assert (call.layers, call.group, call.analyzed) == (layers, f"{layers}/group.toml", "/a.toml")


def test_a_drop_in_s_arguments_are_all_the_phase_s() -> None:
    call = invocation.drop_in("/x/restorer.real", ("/x/restorer", "restorer", "-layers", "/l"), {})
    assert (call.phase, call.named, call.launched, call.program) == ("restorer", True, False, "/x/restorer.real")
    assert (call.flags, call.layers) == ({}, "/layers")
    assert with_group(call, "/g") == ("/x/restorer", "-group=/g", "restorer", "-layers", "/l")


@pytest.mark.parametrize(
    ("text", "api"),
    [
        ("", "unset"),
        ("banana", "unset"),
        ("0.x", "unset"),
        ("0.3", "older"),
        ("0.9", "older"),
        ("0.10", "affected"),
        ("0.11", "affected"),
        ("v0.11", "affected"),
        ("0.12", "newer"),
        ("0.100", "newer"),
        ("1", "newer"),
        ("1.0", "newer"),
        ("0.011", "affected"),
        ("0.\uff11\uff11", "unset"),
        ("0." + "1" * 5000, "unset"),
    ],
)
def test_where_a_platform_api_stands(text: str, api: str) -> None:
    assert read("restorer", CNB_PLATFORM_API=text).api == api


@pytest.mark.parametrize(
    ("arguments", "flags"),
    [
        ((), {}),
        (("-layers", "/l"), {"layers": "/l"}),
        (("--layers", "/l"), {"layers": "/l"}),
        (("-layers=/l",), {"layers": "/l"}),
        (("--layers=/l=m",), {"layers": "/l=m"}),
        (("-layers", "/a", "-layers", "/b"), {"layers": "/b"}),
        (("-daemon", "-layers", "/l", "app", "-group", "/g"), {"daemon": "true", "layers": "/l"}),
        (("-daemon=false", "app"), {"daemon": "false"}),
        (("-cache-dir", "-group", "/g"), {"cache-dir": "-group"}),
        (("-layers", "/l", "--", "-group", "/g"), {"layers": "/l"}),
        (("-", "-group", "/g"), {}),
        (("-log-level", "debug", "-skip-layers"), {"log-level": "debug", "skip-layers": "true"}),
        (("-layers",), {}),
        (("---layers", "/l"), {}),
        (("-=x",), {}),
        (("-layers", ""), {"layers": ""}),
        # Flags of a fork.
        (("-skip-chown", "-uid", "1000"), {"skip-chown": "true", "uid": "1000"}),
        (("-skip-chown", "-daemon", "app"), {"skip-chown": "true", "daemon": "true"}),
        (("-daemon", "-skip-chown", "app"), {"daemon": "true", "skip-chown": "app"}),
        (("-skip-chown", "--", "-daemon"), {"skip-chown": "true"}),
        (("-proxy", "http://p", "-daemon"), {"proxy": "http://p", "daemon": "true"}),
        (("-proxy=http://p", "-uid=7", "-daemon"), {"proxy": "http://p", "uid": "7", "daemon": "true"}),
        (("-retries", "3", "-skip-chown", "-layers", "/l"), {"retries": "3", "skip-chown": "true", "layers": "/l"}),
        (("-uid", "1000", "-skip-chown"), {"uid": "1000", "skip-chown": "true"}),
    ],
)
def test_flags_are_go_s(arguments: tuple[str, ...], flags: dict[str, str]) -> None:
    assert read("restorer", *arguments).flags == flags


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((), ("-group=/n",)),
        (("-layers", "/l"), ("-group=/n", "-layers", "/l")),
        (("-skip-chown", "-uid", "1000"), ("-group=/n", "-skip-chown", "-uid", "1000")),
        (("-group", "/g", "-layers", "/l"), ("-group=/n", "-group", "/n", "-layers", "/l")),
        (("--group", "/g"), ("-group=/n", "--group", "/n")),
        (("-group=/g",), ("-group=/n", "-group=/n")),
        (("--group=/g", "-uid", "7"), ("-group=/n", "-group=/n", "-uid", "7")),
        (("-skip-chown", "-group", "/g"), ("-group=/n", "-skip-chown", "-group", "/n")),
        (("-group", "/a", "-group=/b"), ("-group=/n", "-group", "/n", "-group=/n")),
        (("-groups", "1"), ("-group=/n", "-groups", "1")),
        (("-layers", "/l", "--", "-group", "/g"), ("-group=/n", "-layers", "/l", "--", "-group", "/g")),
        (("-group",), ("-group=/n", "-group")),
    ],
)
def test_another_group_comes_first_and_replaces_the_one_that_is_there(
    before: tuple[str, ...], after: tuple[str, ...]
) -> None:
    assert with_group(read("restorer", *before), "/n") == ("restorer", *after)


def test_paths_are_the_flag_s_else_the_variable_s_else_the_default() -> None:
    call = read("restorer")
    assert (call.layers, call.analyzed, call.group) == ("/layers", "/layers/analyzed.toml", "/layers/group.toml")
    call = read("restorer", CNB_LAYERS_DIR="/l", CNB_ANALYZED_PATH="/a.toml", CNB_GROUP_PATH="/g.toml")
    assert (call.layers, call.analyzed, call.group) == ("/l", "/a.toml", "/g.toml")
    call = read("restorer", "-layers", "/f", "-analyzed", "/fa", CNB_LAYERS_DIR="/l", CNB_GROUP_PATH="")
    assert (call.layers, call.analyzed, call.group) == ("/f", "/fa", "/f/group.toml")


@pytest.mark.parametrize(
    ("arguments", "environ", "daemon"),
    [
        ((), {}, False),
        (("-daemon",), {}, True),
        (("-daemon=T",), {}, True),
        (("-daemon=0",), {"CNB_USE_DAEMON": "true"}, False),
        (("-daemon",), {"CNB_USE_LAYOUT": "true"}, True),
        ((), {"CNB_USE_DAEMON": "1"}, True),
        ((), {"CNB_USE_DAEMON": "banana"}, False),
        ((), {"CNB_USE_DAEMON": "true", "CNB_USE_LAYOUT": "true"}, True),
        ((), {"CNB_USE_LAYOUT": "true"}, False),
        (("-layout",), {"CNB_USE_DAEMON": "true"}, False),
        (("-layout=false",), {"CNB_USE_DAEMON": "true"}, True),
    ],
)
def test_what_an_analyzer_s_flags_say_of_the_build(
    arguments: tuple[str, ...], environ: dict[str, str], daemon: bool
) -> None:
    assert read("analyzer", *arguments, **environ).is_for_daemon is daemon


@pytest.mark.parametrize("flag", ["-version", "--version", "-version=1", "-h", "-help", "--help"])
def test_a_phase_that_tells_about_itself(flag: str) -> None:
    assert read("restorer", flag).about
    assert not read("restorer", "-log-level", flag).about
    assert not read("restorer", f"{flag.partition('=')[0]}=false").about


@pytest.mark.parametrize(
    ("reference", "kind"),
    [
        ("", "empty"),
        ("run", "name"),
        ("registry.example/run:1.0", "name"),
        ("c5eae3d06f9f", "name"),
        (ID, "id"),
        (f"sha256:{ID}", "id"),
        (ID.upper(), "name"),
        (f"run@sha256:{ID}", "digest"),
    ],
)
def test_what_a_reference_is(reference: str, kind: str) -> None:
    assert kind_of(reference) == kind


@pytest.mark.parametrize("text", ["1", "t", "T", "true", "TRUE", "True"])
def test_what_go_takes_for_true(text: str) -> None:
    assert boolean(text) is True
    assert boolean(text.replace("t", "x").replace("T", "X").replace("1", "2")) is None


def test_options_stand_before_the_phase_and_nothing_else_is_taken() -> None:
    arguments = ["--daemon", "--timeout", "2", "--report=r.json", "--", "restorer", "--no-daemon", "--", "-log-level"]
    options, rest = settings.split(arguments)
    assert options == {"daemon": "true", "timeout": "2", "report": "r.json"}
    assert rest == ["restorer", "--no-daemon", "--", "-log-level"]
    assert settings.split(["--", "--daemon"]) == ({}, ["--daemon"])
    assert settings.split(["restorer", "--daemon"]) == ({}, ["restorer", "--daemon"])
    assert settings.split(["--daemon", "restorer", "--strict"]) == ({"daemon": "true"}, ["restorer", "--strict"])
    assert settings.split([]) == ({}, [])


@pytest.mark.parametrize("arguments", [["--bogus", "--", "x"], ["--timeout"], ["--daemon=yes", "x"], ["-d", "x"]])
def test_options_that_are_none(arguments: list[str]) -> None:
    with pytest.raises(WrongUse) as raised:
        settings.split(arguments)
    assert raised.value.exit_code == 64


def test_an_option_wins_over_its_variable() -> None:
    environ = {
        "ANALYZED_SHIM_DAEMON": "false",
        "ANALYZED_SHIM_PULL_POLICY": "never",
        "DOCKER_HOST": "unix:///v",
        "ANALYZED_SHIM_TIMEOUT": "9",
        "ANALYZED_SHIM_REPORT": "/v",
        "ANALYZED_SHIM_STRICT": "1",
    }
    read = settings.read({}, environ)
    assert (read.daemon, read.policy, read.docker_host) == (False, "never", "unix:///v")
    assert (read.timeout, read.report, read.strict) == (9.0, "/v", True)
    options = {"daemon": "true", "pull-policy": "always", "docker-host": "tcp://o", "timeout": "1.5", "strict": "false"}
    read = settings.read(options, environ)
    assert (read.daemon, read.policy, read.docker_host) == (True, "always", "tcp://o")
    assert (read.timeout, read.report, read.strict) == (1.5, "/v", False)
    assert settings.read({}, dict.fromkeys(environ, "")) == settings.Settings()


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ANALYZED_SHIM_DAEMON", "maybe"),
        ("ANALYZED_SHIM_STRICT", "2"),
        ("ANALYZED_SHIM_PULL_POLICY", "sometimes"),
        ("ANALYZED_SHIM_TIMEOUT", "soon"),
        ("ANALYZED_SHIM_TIMEOUT", "0"),
        ("ANALYZED_SHIM_TIMEOUT", "nan"),
        ("ANALYZED_SHIM_TIMEOUT", "inf"),
    ],
)
def test_a_wrong_value_names_its_source(name: str, value: str) -> None:
    with pytest.raises(WrongUse, match=f"{name} is '{value}'") as raised:
        settings.read({}, {name: value})
    assert raised.value.tip
    assert settings.read({}, {name: value, "ANALYZED_SHIM_REPORT": "r"}, only_report=True).report == "r"


class Point(Record):
    x: int
    y: int = 0


def test_a_record_is_a_frozen_value() -> None:
    point = Point(x=1)
    assert (point.x, point.y) == (1, 0)
    assert point.but(y=2) == Point(x=1, y=2)
    assert point != Point(x=1, y=2)
    assert hash(point) == hash(Point(x=1, y=0))
    assert repr(point) == "Point(x=1, y=0)"
    with pytest.raises(AttributeError, match="frozen"):
        point.x = 3  # type: ignore[misc]
    with pytest.raises(TypeError, match="needs x"):
        Point()  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="has no z"):
        Point(x=1, z=2)  # type: ignore[call-arg]
