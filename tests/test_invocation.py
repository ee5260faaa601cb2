"""A phase's flags and environment, and the shim's own, read as they stand."""

from __future__ import annotations

import pytest

from shim.errors import WrongUse
from shim.phase import invocation, settings
from shim.phase.invocation import Invocation
from shim.policy.facts import kind_of
from shim.record import Record, boolean
from tests.conftest import ID


def read(*argv: str, **environ: str) -> Invocation:
    return invocation.read(argv[0], argv, environ)


@pytest.mark.parametrize(
    ("program", "phase"),
    [
        ("analyzer", "analyzer"),
        ("/cnb/lifecycle/restorer", "restorer"),
        ("/cnb/lifecycle/exporter.real", "exporter"),
        ("detector", "other"),
        ("/x/builder", "other"),
        ("creator", "other"),
        ("extender", "other"),
        ("rebaser", "other"),
        ("my-restorer.sh", "restorer"),
        ("sh", "restorer"),
    ],
)
def test_the_base_name_says_which_phase_it_is(program: str, phase: str) -> None:
    assert invocation.phase_of(program) == phase
    assert read(program).phase == phase


@pytest.mark.parametrize(
    ("subcommand", "phase"),
    [("analyze", "analyzer"), ("restore", "restorer"), ("export", "exporter"), ("detect", "other"), ("-v", "other")],
)
def test_the_lifecycle_by_its_own_name_has_subcommands(subcommand: str, phase: str) -> None:
    call = read("/cnb/lifecycle/lifecycle", subcommand, "-layers", "/l")
    assert (call.phase, call.layers) == (phase, "/l")
    assert read("/cnb/lifecycle/lifecycle").phase == "restorer"


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
    ],
)
def test_where_a_platform_api_stands(text: str, api: str) -> None:
    assert invocation.api_of(text) == api
    assert read("restorer", CNB_PLATFORM_API=text).api == api


@pytest.mark.parametrize(
    ("arguments", "flags", "end"),
    [
        ((), {}, 0),
        (("-layers", "/l"), {"layers": "/l"}, 2),
        (("--layers", "/l"), {"layers": "/l"}, 2),
        (("-layers=/l",), {"layers": "/l"}, 1),
        (("--layers=/l=m",), {"layers": "/l=m"}, 1),
        (("-layers", "/a", "-layers", "/b"), {"layers": "/b"}, 4),
        (("-daemon", "-layers", "/l", "app", "-group", "/g"), {"daemon": "true", "layers": "/l"}, 3),
        (("-daemon=false", "app"), {"daemon": "false"}, 1),
        (("-cache-dir", "-group", "/g"), {"cache-dir": "-group"}, 2),
        (("-layers", "/l", "--", "-group", "/g"), {"layers": "/l"}, 2),
        (("-", "-group", "/g"), {}, 0),
        (("-log-level", "debug", "-skip-layers"), {"log-level": "debug", "skip-layers": "true"}, 3),
        (("-layers",), {}, 0),
        (("---layers", "/l"), {}, 0),
        (("-=x",), {}, 0),
        (("-layers", ""), {"layers": ""}, 2),
    ],
)
def test_flags_are_go_s(arguments: tuple[str, ...], flags: dict[str, str], end: int) -> None:
    call = read("restorer", *arguments)
    assert call.flags == flags
    assert call.end == end + 1
    expected = ("restorer", *arguments[:end], "-group", "/proc/self/fd/3", *arguments[end:])
    assert call.with_group("/proc/self/fd/3") == expected


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
