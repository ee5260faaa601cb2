"""Every row of the contract's tables, with the shim as a process, the stand-in lifecycle and the embedded daemon."""

from __future__ import annotations

import json
import os
import pathlib
import stat
import sys
import tomllib

import pytest

from shim.call import WRAPPED
from shim.demo import servers
from tests.support.build import Build
from tests.support.layers import Layers
from tests.support.parts import OTHER_ID, Parts
from tests.support.processes import program

TARGET = '  [run-image.target]\n    os = "linux"\n'
EXTEND = "  extend = true\n"
SILENT = {"DOCKER_HOST": "unix:///no/such.sock"}
OLD = {"STANDIN_VERSION": "0.17"}


class World:
    """A daemon and a registry with images, by the words that the tables below use for them."""

    def __init__(self, build: Build, parts: Parts) -> None:
        self.build = build
        self.parts = parts
        host = parts.registry.host
        self.words = {"name": parts.name, "id": parts.id, "digest": parts.digest, "": ""}
        self.words |= {
            "local": f"{host}/run/local:1.0",  # in the daemon only
            "new": parts.registry.push("run/new:1.0", parts.image),  # in the registry only
            "new-digest": parts.digest.replace("/app@", "/new@"),
            "both": parts.registry.push("run/both:1.0", parts.image),  # in the daemon by the registry's digest, too
            "both-digest": parts.digest.replace("/app@", "/both@"),
            "absent": f"{host}/run/absent:1.0",
            "absent-digest": f"{host}/run/absent@sha256:{OTHER_ID}",
        }
        for word in ("local", "both", "both-digest"):
            parts.engine.tag(self.words[word], f"sha256:{parts.id}")
        self.seen = build.directory / "seen"

    def lay(self, run_image: str, extra: str = "") -> None:
        """Write analyzed.toml with a reference and an image, by their words."""
        reference, _, image = run_image.partition("|")
        self.build.layers.write(self.words[reference], self.words[image], extra=extra)

    def spy(self, phase: str) -> pathlib.Path:
        """Write a phase that notes what it is run with, and goes on as the stand-in's."""
        toml, shown = self.build.layers.toml, 'echo "$* $CNB_GROUP_PATH $r"'
        note = f'r=$(sed -n "/^.run-image/,\\$s/^ *reference = //p" {toml}); {shown} >> {self.seen}'
        return self.build.phase(phase, does=f'{note}\nexec {self.build.lifecycle}/{phase} "$@"')

    def says(self, text: str) -> str:
        return text.format_map({"address": self.parts.engine.url, **self.words, "id": self.parts.id[:12]})


@pytest.fixture
def world(build: Build, parts: Parts) -> World:
    build.env |= parts.at
    return World(build, parts)


# The restorer. What it is run with: `+` as called, `-` without the lookup, and the reference that it finds then.

CRASH = "no extension switched the run image; skipped the registry lookup, which would crash the restorer"
SET = "set run-image.reference to {id}, the daemon's image for {%s}; skipped the registry lookup"
KEPT = "keeping run-image.reference as {name}, which the exporter resolves in the daemon (unix:///no/such.sock: no such"
PULL = "Warning: the daemon at {address} does not have {%s}; run docker pull "
BACK = "the daemon does not have {digest}; set run-image.reference back to {name}, which it has"
TELL = "the restorer changed run-image.reference to {%s}; if this build exports to a daemon, pass --daemon or set ANALY"
RETRY = "Warning: the restorer failed (exit status 1), but the daemon has {local}; retrying without the registry lookup"
FAILED = "the restorer failed (exit status 1); the shim changed nothing"
FILLED = "run-image.reference was empty; set it to {name}, which the exporter resolves"
KEEPS, NOT_IN = "daemon-out-of-reach kept-name", "not-in-daemon not-in-daemon"
ROWS = {
    "no switch": ("id|", "", {}, "-id", 0, "no-switch no-lookup", "id", CRASH),
    "no switch, registry": ("digest|", "--no-daemon", SILENT, "-digest", 0, "no-switch no-lookup", "digest", CRASH),
    "registry": ("name|name", "--no-daemon", {}, "+name", 0, "registry-build not-a-daemon-build", "digest", ""),
    "registry, 0.17": ("|name", "--no-daemon", OLD, "+name", 0, "registry-build filled", "name", FILLED),
    "daemon": ("name|name", "--daemon", {}, "-id", 0, "daemon-build prevented", "id", SET % "name"),
    "daemon, 0.17": ("|name", "--daemon", OLD, "-id", 0, "daemon-build prevented", "id", SET % "name"),
    "daemon, silent": ("name|name", "--daemon", SILENT, "-name", 0, KEEPS, "name", KEPT),
    "daemon, absent": ("absent|absent", "--daemon", {}, "+absent", 1, NOT_IN, "absent", PULL % "absent"),
    "daemon, lacks, 0.17": ("|new", "--daemon", OLD, "+new", 0, NOT_IN, "new", PULL % "new"),
    "unknown, as it was": ("name|name", "", OLD, "+name", 0, "unknown unchanged", "name", ""),
    "unknown, 0.17": ("|name", "", OLD, "+name", 0, "unknown filled", "name", FILLED),
    "unknown, put back": ("name|name", "", {}, "+name", 0, "unknown reverted", "name", BACK),
    "unknown, put back, empty": ("|name", "", {}, "+name", 0, "unknown reverted", "name", BACK),
    "unknown, resolves": ("both|both", "", {}, "+both", 0, "unknown resolves", "both-digest", ""),
    "unknown, lacks both": ("new|new", "", {}, "+new", 0, "unknown daemon-unknown", "new-digest", TELL % "new-digest"),
    "unknown, silent": ("name|name", "", SILENT, "+name", 0, "unknown daemon-unknown", "digest", TELL % "digest"),
    "unknown, fails": ("local|local", "", {}, "+local -local", 0, "unknown retried", "local", RETRY),
    "unknown, fails, absent": ("absent|absent", "", {}, "+absent", 1, "unknown unchanged", "absent", FAILED),
}  # fmt: skip


@pytest.mark.parametrize("case", ROWS)
def test_a_row_of_the_restorer(world: World, layers: Layers, case: str) -> None:
    run_image, option, environ, runs, code, row_outcome, reference, says = ROWS[case]
    world.lay(run_image, EXTEND)
    extensions = layers.group.read_bytes()
    phase = world.spy("restorer")
    ended = world.build.run(phase, "-skip-layers", options=("--strict", *filter(None, [option])), **environ)
    row, outcome = row_outcome.split()
    reference = world.words[reference]
    ended.expect(code=code, row=row, outcome=outcome, reference=reference)
    expected = [f'-skip-layers {layers.note if run[0] == "-" else ""} "{world.words[run[1:]]}"' for run in runs.split()]
    assert world.seen.read_text().splitlines() == expected
    if "-" in runs:
        assert tomllib.loads(layers.note.read_text()).keys() == {"group"}, "what is only an option's isn't noted"
    lines = [line for line in ended.out.splitlines() if line.startswith("analyzed-shim: ")]
    assert len(lines) == bool(says), ended.out
    if says:
        assert lines[0].startswith(f"analyzed-shim: {world.says(says)}"), ended.out
        assert lines[0].endswith(f" [{outcome}]")
        assert world.says(says).removeprefix("Warning: ") in ended.report["sentence"]
    if code == 0 and "retried" not in row_outcome:
        assert ended.err == ""
    build = {"--daemon": "daemon", "--no-daemon": "registry", "": "unknown"}[option]
    is_execed = build != "unknown" or row == "no-switch" or outcome == "retried"
    before, _, image = run_image.partition("|")
    told = {"schema": 2, "phase": "restorer", "platform_api": "0.11", "build": build}
    told |= {"known_by": "option" if option else None, "daemon": environ.get("DOCKER_HOST", world.parts.engine.url)}
    told |= {"run_image": world.words[image] or reference, "reference_before": world.words[before] or None}
    after = world.words[runs.split()[0][1:]] if is_execed else reference
    ended.expect(**told, reference_after=after, exit_code=None if is_execed else code)
    has = outcome in ("prevented", "reverted", "resolves", "retried")
    assert (ended.report.get("image_id") == world.parts.id) is has
    assert (layers.stray(), layers.group.read_bytes()) == (set(), extensions)
    assert all(asked.startswith("GET /") for asked in world.parts.engine.asked)
    assert bool(world.parts.registry.asked) is ("+" in runs and environ.get("STANDIN_VERSION") != "0.17")


@pytest.mark.parametrize(
    ("does", "code", "outcome", "words"),
    [
        ("echo '# x' >> {toml}; exit 9", 9, "unchanged", "the restorer failed (exit status 9); the shim changed"),
        ("kill -KILL $$", 137, "unchanged", "the restorer failed (signal 9); the shim changed nothing"),
        ("echo x >> {seen}; exit $(wc -l < {seen})", 2, "retried", "retrying without the registry lookup"),
        ("echo '[' > {toml}", 0, "passed-through", "Warning: {toml} is not valid TOML"),
        ("rm {toml}; exit 3", 3, "passed-through", "Warning: {toml} not found"),
    ],
)
def test_what_else_an_unknown_build_s_restorer_may_do(
    world: World, layers: Layers, does: str, code: int, outcome: str, words: str
) -> None:
    world.lay("name|name")
    fill = {"toml": layers.toml, "seen": world.seen}
    ended = world.build.run(world.build.phase(does=does.format_map(fill)), options=("--strict",))
    ended.expect(code=code, outcome=outcome)
    assert words.format_map(fill) in ended.out and ended.out.count("\n") == 1


# The exporter.

LACKS = "Warning: the daemon at {address} does not have {%s}, so the export fails with `image has no layers`; run d"
UNASKED = "Warning: the daemon can't be asked for {%s} (unix:///no/such.sock: no such file or directory); if the ex"
BY_ID = "the daemon does not have {%s}; set run-image.reference to {id}, its image for {name}"
ABSENT = "absent-digest} or {absent"
EXPORTS = {
    "digest, it has the name": ("digest|name", {}, 0, 0, "reverted", "id", BY_ID % "digest"),
    "digest, it has it": ("both-digest|both", {}, 0, 0, "resolves", "both-digest", ""),
    "name": ("name|name", {}, 0, 0, "resolves", "name", ""),
    "ID": ("id|name", {}, 0, 0, "resolves", "id", ""),
    "neither": ("absent-digest|absent", {}, 62, 81, "not-in-daemon", "absent-digest", LACKS % ABSENT),
    "nor the name": ("absent|absent", {}, 62, 81, "not-in-daemon", "absent", LACKS % "absent"),
    "silent": ("digest|name", SILENT, 1, 81, "daemon-unknown", "digest", UNASKED % "digest} or {name"),
    "empty": ("|name", {}, 0, 0, "filled", "id", "run-image.reference was empty; set it to {id}, the daemon's"),
    "empty, silent": ("|name", SILENT, 1, 81, "daemon-unknown", "name", UNASKED % "name"),
}  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", EXPORTS)
def test_a_row_of_the_exporter(world: World, layers: Layers, case: str, strict: bool) -> None:
    run_image, environ, code, strict_code, outcome, reference, says = EXPORTS[case]
    world.lay(run_image)
    arguments = ["-daemon"] if strict else []
    environ = environ | ({"ANALYZED_SHIM_STRICT": "true"} if strict else {"CNB_USE_DAEMON": "true"})
    ended = world.build.run(world.spy("exporter"), *arguments, "app:1", **environ)
    ended.expect(code=strict_code if strict else code, row="exporter", outcome=outcome, build="daemon")
    ended.expect(known_by="-daemon" if strict else "CNB_USE_DAEMON")
    assert layers.reference == world.words[reference]
    if strict and strict_code:
        says = says.replace("Warning: ", "ERROR: ")
        assert (world.seen.exists(), ended.report["exit_code"], ended.out.count("\n")) == (False, 81, 1)
    else:
        assert world.seen.read_text() == f'{" ".join((*arguments, "app:1"))}  "{world.words[reference]}"\n'
        assert "exit_code" not in ended.report
    lines = [line for line in ended.out.splitlines() if line.startswith("analyzed-shim: ")]
    assert [line for line in lines if world.says(says) in line and line.endswith(f" [{outcome}]")] == lines
    assert len(lines) == bool(says), ended.out
    asked = [question for question in world.parts.engine.asked if "/json" in question and "/tag" not in question]
    assert len(asked) <= 3, "one is the phase's"
    if "DOCKER_HOST" not in environ and code == 0:
        assert world.parts.engine.find("app:1") == f"sha256:{world.parts.id}"


# The analyzer.


@pytest.mark.parametrize(
    ("arguments", "before"),
    [("-daemon app", ""), ("-daemon app", "daemon = false\n"), ("app", "daemon = true\n"), ("app -daemon", "\0[")],
)
def test_the_analyzer_leaves_the_note_beside_analyzed_toml(
    build: Build, layers: Layers, arguments: str, before: str
) -> None:
    if before:
        layers.note.write_text(before)
    kind = "daemon" if arguments == "-daemon app" else "registry"
    phase = build.phase("analyzer", does='echo "$*"', exits=7)
    words = ["-analyzed", str(layers.toml), *arguments.split()]
    ended = build.run(phase, *words, CNB_LAYERS_DIR="/no/such")
    ended.expect(code=7, out=f"{' '.join(words)}\n", err="", row="analyzer", outcome="noted", build=kind)
    assert layers.note.read_text().endswith(f"daemon = {str(kind == 'daemon').lower()}\n")
    assert stat.S_IMODE(layers.note.stat().st_mode) == 0o644


# Nothing to do.

HELP = "only the version or help is asked for"
WITHOUT = "the exporter is called without -daemon"
NO_EXTENSION, NO_SWITCH, HAS_TARGET = "no image extension in ", "no extension switched", "run-image.target.os is set"
NOTHING: dict[str, tuple[str, str, str]] = {
    "version": ("restorer", "-version", HELP),
    "help": ("exporter", "-h", HELP),
    "detector": ("detector", "", "detector is not a phase that is wrapped"),
    "no phase": ("true", "", "/true is not a phase that is wrapped"),
    "no extension": ("restorer", "", NO_EXTENSION),
    "an empty list": ("restorer", "", NO_EXTENSION),
    "a comment": ("restorer", "", NO_EXTENSION),
    "a target": ("restorer", "", HAS_TARGET),
    "a registry's exporter": ("exporter", "-daemon=false app", WITHOUT),
    "no switch": ("exporter", "-daemon app", NO_SWITCH),
    "an empty image": ("exporter", "app", NO_SWITCH),
    **{f"{phase} at 0.12": (phase, "-daemon", "at Platform API 0.12") for phase in WRAPPED},
}
EXTRA = {"a target": EXTEND + TARGET, "an empty image": '  image = ""\n'}
GROUPS = {"no extension": "", "an empty list": "group-extensions = []\n", "a comment": "# group-extensions\n"}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_to_do_is_an_exec_as_called(build: Build, layers: Layers, engine: servers.Engine, case: str) -> None:
    name, words, reason = NOTHING[case]
    image = None if case in ("no switch", "an empty image") else "r:1"
    layers.write("r:1", image, extra=EXTRA.get(case, ""), extensions=case not in GROUPS)
    layers.group.write_text(GROUPS.get(case, "") + layers.group.read_text())
    before = layers.identity()
    environ = {"CNB_PLATFORM_API": case[-4:] if "at" in case.split() else "0.11", "CNB_USE_DAEMON": "true"}
    environ["DOCKER_HOST"] = engine.url
    phase = build.phase(name, does='echo "$* $CNB_GROUP_PATH"', exits=7)
    build.run(phase, *words.split(), ANALYZED_SHIM_REPORT="", **environ).expect(code=7, out=f"{words} \n", err="")
    ended = build.run(phase, *words.split(), options=("--daemon", "--strict"), CNB_LOG_LEVEL="debug", **environ)
    outcome = "not-a-daemon-build" if reason is WITHOUT else "passed-through"
    ended.expect(code=7, err="", row="nothing-to-do", outcome=outcome, exit_code=None)
    line, ran = ended.out.split("\n", 1)
    assert line.startswith("analyzed-shim: ") and reason in line and line.endswith(f" [{outcome}]"), line
    assert (ran, reason in ended.report["sentence"]) == (f"{words} \n", True)
    assert (layers.identity(), layers.note.exists(), layers.stray(), engine.asked) == (before, False, set(), [])


# Options, and drop-ins.


def test_a_phase_of_another_name_is_said_by_an_option(world: World) -> None:
    phase = world.build.phase("restore-it", does='echo "$*"')
    for options, outcome in (("--phase restorer", "prevented"), ("", "passed-through")):
        world.lay("name|name")
        world.build.run(phase, "-skip-layers", options=("--daemon", *options.split())).expect(code=0, outcome=outcome)


@pytest.fixture
def drop_ins(build: Build) -> pathlib.Path:
    """A lifecycle directory with the three drop-ins."""
    directory = build.directory / "cnb"
    directory.mkdir()
    program(directory / "lifecycle", (build.lifecycle / "lifecycle").read_text())
    (directory / "detector").symlink_to("lifecycle")
    for phase in WRAPPED:
        (directory / f"{phase}.real").symlink_to("lifecycle")
        program(directory / phase, f"#!{sys.executable}\nfrom shim.__main__ import drop_in\ndrop_in(__file__)\n")
    build.env["PYTHONPATH"] = os.getcwd()
    return directory


@pytest.mark.parametrize("version", ["0.17", "0.20"])
@pytest.mark.parametrize("daemon", [True, False])
def test_with_drop_ins_a_whole_build_needs_no_setting(
    world: World, layers: Layers, drop_ins: pathlib.Path, version: str, daemon: bool
) -> None:
    """The other ways to wrap a build's phases are test_worlds's."""
    of_daemon = ("-daemon",) * daemon
    world.build.env |= {"STANDIN_VERSION": version, "STANDIN_SWITCH": world.parts.name}
    world.build.call(str(drop_ins / "analyzer"), *of_daemon, "-run-image", world.parts.name, "app:1").expect(code=0)
    for phase, arguments in (("detector", ()), ("restorer", ()), ("exporter", (*of_daemon, "app:1"))):
        world.build.call(str(drop_ins / phase), *arguments).expect(code=0)
    assert layers.reference == (world.parts.id if daemon else world.words["name" if version == "0.17" else "digest"])
    if daemon:
        assert world.parts.engine.find("app:1") == f"sha256:{world.parts.id}"


@pytest.mark.parametrize("link", ["bin/x", "bin/exporter", "place/restorer"])
def test_a_drop_in_is_its_own_file_s_phase_by_whatever_link(world: World, drop_ins: pathlib.Path, link: str) -> None:
    called = drop_ins.parent / link
    if called.parent.name == "place":
        called.parent.symlink_to(drop_ins)
    else:
        called.parent.mkdir()
        called.symlink_to("../cnb/restorer")
    (drop_ins / "restorer.real").unlink()
    program(drop_ins / "restorer.real", '#!/bin/sh\necho "$0 $*"\n')
    world.lay("name|name")
    ended = world.build.call(str(called), "--daemon", "-x", "--", "y", ANALYZED_SHIM_DAEMON="true")
    ended.expect(code=0, phase="restorer", outcome="prevented", known_by="option")
    assert ended.out.splitlines()[-1] == f"{drop_ins}/restorer.real --daemon -x -- y"


@pytest.mark.parametrize(
    ("kind", "api", "code", "words"),
    [
        ("missing", "0.11", 127, "{cnb}/restorer.real not found, the real restorer (put it there, or set ANALYZED_SHI"),
        ("a link to itself", "0.11", 126, "{cnb}/restorer.real is the shim itself (set ANALYZED_SHIM_RESTORER to the"),
        ("/no/such", "0.11", 127, "/no/such not found, the real restorer"),
        ("{cnb}/restorer", "0.11", 126, "{cnb}/restorer is the shim itself"),
        ("{cnb}/../own", "0.12", 5, "real -x"),
    ],
)
def test_a_real_phase_that_can_not_be(
    world: World, drop_ins: pathlib.Path, kind: str, api: str, code: int, words: str
) -> None:
    if "/" not in kind:
        (drop_ins / "restorer.real").unlink()
    if kind == "a link to itself":
        (drop_ins / "restorer.real").symlink_to("restorer")
    program(drop_ins.parent / "own", "#!/bin/sh\necho real $*\nexit 5\n")
    world.lay("name|name")
    environ = {"ANALYZED_SHIM_RESTORER": kind.format(cnb=drop_ins) if "/" in kind else "", "CNB_PLATFORM_API": api}
    ended = world.build.call(str(drop_ins / "restorer"), "-x", ANALYZED_SHIM_DAEMON="1", **environ)
    ended.expect(code=code, err="")
    assert words.format(cnb=drop_ins) in ended.out


# Its lines and its report.


@pytest.mark.parametrize(
    ("level", "flag", "lines"),
    [("WARN", "", 0), ("banana", "", 1), ("error", "-log-level=info", 1), ("debug", "-log-level=error", 0)],
)
def test_the_log_level_rules_its_lines(world: World, level: str, flag: str, lines: int) -> None:
    world.lay("name|name")
    ended = world.build.run("restorer", *flag.split(), options=("--daemon",), CNB_LOG_LEVEL=level)
    ended.expect(code=0, reference=world.parts.id, err="")
    assert ended.out.count("analyzed-shim: ") == ended.out.count("\n") == lines


def test_a_report_names_the_phase_if_it_is_asked_to(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    layers.write("r:1", "r:1")
    for phase in ("detector", "restorer"):
        build.run(phase, "-version", options=("--report", f"{tmp_path}/r-{{phase}}.json"))
        report = json.loads((tmp_path / f"r-{phase}.json").read_text())
        assert (report["phase"], report["outcome"]) == (phase, "passed-through")


def test_a_group_as_only_a_person_writes_it_is_read_and_not_written(world: World, layers: Layers) -> None:
    for strict, code, reference in (("--no-strict", 0, world.parts.digest), ("--strict", 81, world.parts.name)):
        world.lay("name|name")
        layers.group.write_text('group = [{ id = "bp/a" }]\ngroup-extensions = [{ id = "ext/a" }]\n')
        ended = world.build.run("restorer", options=("--daemon", strict))
        ended.expect(code=code, row="not-written", outcome="unrepaired", reference=reference)
        assert f"group-extensions can't be left out of {layers.group}" in ended.out
