"""A phase's flags and environment, and the shim's own, read as they stand."""

from __future__ import annotations

import shlex

import pytest

from shim import call, settings
from shim.call import Call
from shim.errors import WrongUse
from shim.log import plain, without_secrets


def read(*words: str, **environ: str) -> Call:
    return call.read(words, environ, lambda _: True)


PROGRAMS = {name: name for name in ("analyzer", "detector", "restorer", "builder", "exporter", "creator", "extender")}
PROGRAMS |= {"rebaser": "rebaser", "/cnb/lifecycle/exporter.real": "exporter", "./restorer.sh": "restorer"}
PROGRAMS |= dict.fromkeys(("my-restorer.sh", "restorer-real", "Restorer", "/restorer/sh", "lifecycle", "."), "")


@pytest.mark.parametrize(("program", "phase"), PROGRAMS.items())
def test_the_base_name_without_extension_says_which_phase_it_is(program: str, phase: str) -> None:
    found = read(program, "-layers", "/l", CNB_PLATFORM_API="0.11")
    assert (found.phase, found.at, found.layers) == (phase, 0, "/l")
    assert found.is_affected is (phase in ("analyzer", "restorer", "exporter"))


SEEN_THROUGH = ["env A=b", "/usr/bin/env A=b=c EMPTY=", "env", "env RESTORER=/cnb/lifecycle/restorer", "env 1a=b"]
OTHERS = ["env --", "env -i PATH=/bin", "env -u DOCKER_HOST", "env -S A=b", "env A=b nice", "env =b"]
OTHERS += ["env A=b env C=d", "timeout --signal=INT -k 5 60", "tini -p SIGTERM --", "bash -c 'exec \"$@\"' --"]
OTHERS += ["strace -o /tmp/restorer.log", "flock /builder", "x exporter HOST --"]


@pytest.mark.parametrize("launcher", SEEN_THROUGH + OTHERS)
@pytest.mark.parametrize("phase", call.WRAPPED)
def test_a_launcher_stays_as_it_is_and_only_plain_env_is_seen_through(launcher: str, phase: str) -> None:
    first, program = shlex.split(launcher), f"/cnb/lifecycle/{phase}"
    words = (*first, program, "-daemon", "-layers", "/l", "app")
    found = call.read(words, {"DOCKER_HOST": "tcp://mine"}, {first[0], program}.__contains__)
    assert (found.phase, found.at, found.argv) == (phase, len(first), words)
    assert found.flags == {"daemon": "true", "layers": "/l"}
    assert found.without_lookup("/n")[0] == words
    assert found.docker_host() == ("tcp://mine" if launcher in SEEN_THROUGH else "")
    assert found.docker_host("tcp://given") == "tcp://given"


def test_without_a_program_of_a_phase_s_name_the_option_says_it() -> None:
    words = ("my-program", "-layers", "/l", "restorer")
    assert call.read(words, {}, lambda _: False).phase == ""
    found = call.read(words, {}, lambda _: False, "restorer")
    assert (found.phase, found.at, found.layers) == ("restorer", 0, "/l")
    with pytest.raises(WrongUse, match="--phase is 'restore'"):
        call.read(words, {}, lambda _: False, "restore")


APIS = {"env": "0.11", "env CNB_PLATFORM_API=0.12": "0.12", "env CNB_PLATFORM_API=": ""}
APIS |= {"env CNB_PLATFORM_API=0.12 CNB_PLATFORM_API=0.10": "0.10", "sh -c CNB_PLATFORM_API=0.12 --": "0.11"}


@pytest.mark.parametrize(("launcher", "api"), APIS.items())
def test_the_environment_is_the_one_behind_env(launcher: str, api: str) -> None:
    found = read(*launcher.split(), "/cnb/lifecycle/restorer", CNB_PLATFORM_API="0.11")
    assert (found.platform_api, found.environ) == (api, {"CNB_PLATFORM_API": "0.11"})


def test_the_daemon_is_the_phase_s() -> None:
    variables, socket = {"DOCKER_HOST": "tcp://a", "DOCKER_CONTEXT": "elsewhere"}, "unix:///var/run/docker.sock"
    for environ in ({}, {"DOCKER_HOST": ""}, {"DOCKER_CONTEXT": "elsewhere"}):
        assert read("restorer", **environ).docker_host() == socket
    hosts = {"": "tcp://a", "env DOCKER_HOST=tcp://b": "tcp://b", "env DOCKER_HOST=": socket}
    for launcher, host in {**hosts, "sh -c DOCKER_HOST=tcp://b": ""}.items():
        assert read(*launcher.split(), "restorer", **variables).docker_host() == host


OTHER_APIS = ("", "banana", "0.x", "0.9", "0.12", "0.100", "1", "0.1", "0.11.0", " 0.11", "0.\uff11\uff11", "vv0.11")


@pytest.mark.parametrize("text", ["0.10", "0.11", "v0.11", *OTHER_APIS])
def test_two_platform_apis_are_affected(text: str) -> None:
    assert read("restorer", CNB_PLATFORM_API=text).is_affected is (text not in OTHER_APIS)


FLAGS = {"": "", "-layers /l": "layers=/l", "--layers=/l=m": "layers=/l=m", "--layers /a -layers=/b": "layers=/b"}
FLAGS |= {"-daemon true -layers /l": "daemon=true", "-daemon=false app": "daemon=false", "- -group /g": ""}
FLAGS |= {"-daemon -layers /l app -group /g": "daemon=true layers=/l", "-layers /l -- -group /g": "layers=/l"}
FLAGS |= {"-log-level debug -cache-image '' -skip-layers": "log-level=debug cache-image= skip-layers=true"}
FLAGS |= {"-parallel -no-color": "parallel=true no-color=true", "-skip-restore -force": "skip-restore=true force=true"}
# A fork's.
FLAGS |= {"-skip-chown -uid 1000": "skip-chown=true uid=1000", "-retries=3 -skip-chown": "retries=3 skip-chown=true"}
FLAGS |= {"-proxy http://p -skip-chown -daemon app": "proxy=http://p skip-chown=true daemon=true"}


@pytest.mark.parametrize("arguments", FLAGS)
def test_flags_are_go_s(arguments: str) -> None:
    wanted = dict(pair.split("=", 1) for pair in FLAGS[arguments].split())
    assert read("restorer", *shlex.split(arguments)).flags == wanted


REPLACED = {"": "", "-group /g -layers /l": "-group /n -layers /l", "-group=/g": "-group=/n", "-group ''": "-group /n"}
REPLACED |= {"--group=/g -uid 7": "-group=/n -uid 7", "-group /a -group=/b": "-group /n -group=/n"}
REPLACED |= {"-skip-chown --group /g": "-skip-chown --group /n"}
REPLACED |= {words: words for words in ("-groups 1", "-layers /l -- -group /g", "-layers /l app -group /g")}


@pytest.mark.parametrize("before", REPLACED)
def test_without_the_lookup_a_group_that_is_given_is_replaced_and_no_flag_is_added(before: str) -> None:
    for launcher in ((), ("env", "A=b"), ("nice", "-group", "/g")):
        found = read(*launcher, "restorer", *shlex.split(before), PATH="/bin", CNB_GROUP_PATH="/g")
        argv, environ = found.without_lookup("/n")
        assert argv == (*launcher, "restorer", *REPLACED[before].split())
        assert environ == {"PATH": "/bin", "CNB_GROUP_PATH": "/n"}


def test_without_the_lookup_a_group_that_env_names_is_replaced() -> None:
    words = "env CNB_GROUP_PATH={} X=CNB_GROUP_PATH=/b restorer CNB_GROUP_PATH=/c"
    assert read(*words.format("/a").split()).without_lookup("/n")[0] == tuple(words.format("/n").split())


def test_paths_are_the_flag_s_else_the_variable_s_else_the_default() -> None:
    variables = {"CNB_LAYERS_DIR": "/l", "CNB_ANALYZED_PATH": "/a/a.toml", "CNB_GROUP_PATH": "/g.toml"}
    empty = dict.fromkeys(variables, "")
    for words, environ, wanted in (
        ("", {}, "/layers /layers/analyzed.toml /layers/group.toml /layers/analyzed-shim.toml"),
        ("", variables, "/l /a/a.toml /g.toml /a/analyzed-shim.toml"),
        ("-layers /f -analyzed f/a -group f/g", variables, "/f f/a f/g f/analyzed-shim.toml"),
        ("-layers /f -group=", empty, "/f /f/analyzed.toml /f/group.toml /f/analyzed-shim.toml"),
        ("-layers= -analyzed a.toml", {}, "/layers a.toml /layers/group.toml analyzed-shim.toml"),
    ):
        found = read("restorer", *words.split(), **environ)
        assert f"{found.layers} {found.analyzed} {found.group} {found.note}" == wanted


FOR_DAEMON = ["-daemon |", "-daemon |CNB_USE_LAYOUT=true", "|CNB_USE_DAEMON=true CNB_USE_LAYOUT=true"]
FOR_DAEMON += ["-layout=false|CNB_USE_DAEMON=1"]
NOT_FOR_DAEMON = ["|", "-daemon -daemon=f|", "-daemon=0|CNB_USE_DAEMON=true", "|CNB_USE_DAEMON=banana", "app -daemon|"]


@pytest.mark.parametrize("words", [*FOR_DAEMON, *NOT_FOR_DAEMON, "-layout|CNB_USE_DAEMON=true"])
def test_what_an_analyzer_s_or_exporter_s_flags_say_of_the_build(words: str) -> None:
    arguments, _, variables = words.partition("|")
    environ = dict(pair.split("=") for pair in variables.split())
    assert read("analyzer", *arguments.split(), **environ).is_for_daemon is (words in FOR_DAEMON)
    assert read("env", *variables.split(), "exporter", *arguments.split()).is_for_daemon is (words in FOR_DAEMON)


@pytest.mark.parametrize("flag", ["-version", "--version=1", "-h", "-help"])
def test_a_phase_that_is_asked_for_help(flag: str) -> None:
    assert read("restorer", "-layers", "/l", flag).asks_for_help
    assert not read("restorer", "app", flag).asks_for_help
    assert not read("restorer", f"{flag.partition('=')[0]}=false").asks_for_help


def test_options_stand_before_the_phase_and_nothing_else_is_taken() -> None:
    words = ["restorer", "--no-daemon", "--", "-log-level"]
    options = {"daemon": "true", "timeout": "2", "report": "r=.json"}
    assert call.split(["--daemon", "--timeout", "2", "--report=r=.json", "--", *words]) == (options, words)
    assert call.split(["--", "--daemon"]) == ({}, ["--daemon"])
    assert call.split(["--no-daemon", "restorer", "--strict"]) == ({"daemon": "false"}, ["restorer", "--strict"])
    assert call.split(["--no-strict", "--phase=restorer"]) == ({"strict": "false", "phase": "restorer"}, [])


NO_OPTIONS = ("--bogus -- x", "--timeout", "--daemon=yes x", "-d x", "-timeout 2", "--pull-policy never x", "- x")


@pytest.mark.parametrize("words", [*NO_OPTIONS, "---daemon x", "--docker-hosts=tcp://user:word@h x"])
def test_options_that_are_none_are_wrong_use_and_no_value_is_repeated(words: str) -> None:
    with pytest.raises(WrongUse) as raised:
        call.split(words.split())
    assert raised.value.exit_code == 64 and raised.value.tip and "word" not in raised.value.with_tip
    assert f"{words.split()[0].partition('=')[0]} " in f"{raised.value} "


def test_an_option_wins_over_its_variable() -> None:
    """The phase's own `DOCKER_HOST` is read where the phase is known: behind `env` it may be another."""
    names = ("DAEMON", "TIMEOUT", "REPORT", "STRICT")
    environ = {f"ANALYZED_SHIM_{name}": text for name, text in zip(names, ("false", "9", "/v", "1"), strict=True)}
    environ["DOCKER_HOST"] = "unix:///v"
    assert tuple(settings.read({}, environ)) == (False, "", 9.0, "/v", True)
    options = {"daemon": "true", "docker-host": "tcp://o", "timeout": "1.5", "strict": "false", "report": "/o"}
    assert tuple(settings.read(options, environ)) == (True, "tcp://o", 1.5, "/o", False)
    assert tuple(settings.read({}, dict.fromkeys(environ, ""))) == (None, "", 10.0, "", False)


@pytest.mark.parametrize("wrong", ["daemon=maybe", "daemon=yes", "strict=2", "timeout=soon", "timeout=0", "timeout=-1"])
def test_a_wrong_value_names_its_source(wrong: str) -> None:
    option, _, value = wrong.partition("=")
    for text in (value, *(("nan", "inf", "9" * 400) if option == "timeout" else ())):
        with pytest.raises(WrongUse, match=f"^{settings.VARIABLES[option]} is '{text}'"):
            settings.read({}, {settings.VARIABLES[option]: text})
        with pytest.raises(WrongUse, match=f"^--{option} is '{text}'"):
            settings.read({option: text}, {})


def test_what_others_wrote_is_one_printable_line_without_what_may_be_secret() -> None:
    assert plain("a  b\t\r\nc\u2028\x85::set-output name=y::z") == "a b c ::set-output name=y::z"
    assert plain("\x1b[31mé 𝄞\x07\u202e\udcff") == "\\x1b[31mé 𝄞\\x07\\u202e\\udcff"
    assert (plain("x" * 400), plain("\x1b" * 400)) == ("x" * 299 + "…", "\\x1b" * 74 + "\\x1…")
    for address in ("unix:///a@b?c.sock", "tcp://h:1", "/var/run/docker.sock", ""):
        assert without_secrets(address) == address
    assert without_secrets("tcp://user:word@h:1") == "tcp://***@h:1"
    assert without_secrets("https://user:w@rd@h/x?token=1") == "https://***@h/x"
