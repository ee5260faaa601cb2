"""Every row of the contract's tables, with the shim as a process, the stand-in lifecycle and the embedded daemon."""

from __future__ import annotations

import json
import pathlib
import stat
import tomllib

import pytest

from shim.call import WRAPPED
from shim.demo import servers
from tests.support.build import Build
from tests.support.launchers import drop_in
from tests.support.parts import OTHER_ID, Parts
from tests.support.processes import program

TARGET = '  [run-image.target]\n    os = "linux"\n'
EXTEND = "  extend = true\n"
SILENT = {"DOCKER_HOST": "unix:///no/such.sock"}
OLD = {"STANDIN_VERSION": "0.17"}


class World(Build):
    """A build with a daemon and a registry with images, by the words that the tables below use for them."""

    def __init__(self, build: Build, parts: Parts) -> None:
        super().__init__(build.directory, build.lifecycle, build.layers)
        self.parts = parts
        self.env |= parts.at
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
        self.seen = self.directory / "seen"

    def lay(self, run_image: str, extra: str = "") -> None:
        """Write analyzed.toml with a reference and an image, by their words."""
        reference, _, image = run_image.partition("|")
        self.layers.write(self.words[reference], self.words[image], extra=extra)

    def spy(self, phase: str) -> pathlib.Path:
        """Write a phase that notes what it is run with, and goes on as the stand-in's."""
        toml, shown = self.layers.toml, 'echo "$* $CNB_GROUP_PATH $r"'
        note = f'r=$(sed -n "/^.run-image/,\\$s/^ *reference = //p" {toml}); {shown} >> {self.seen}'
        return self.phase(phase, does=f'{note}\nexec {self.lifecycle}/{phase} "$@"')

    def says(self, text: str) -> str:
        return text.format_map({"address": self.parts.engine.url, **self.words, "id": self.parts.id[:12]})


@pytest.fixture
def world(build: Build, parts: Parts) -> World:
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
    "registry": ("name|name", "--no-daemon", {}, "+name", 0, "registry-build not-a-daemon-build", "digest", ""),
    "registry, 0.17": ("|name", "--no-daemon", OLD, "+name", 0, "registry-build filled", "name", FILLED),
    "daemon": ("name|name", "--daemon", {}, "-id", 0, "daemon-build prevented", "id", SET % "name"),
    "daemon, 0.17": ("|name", "--daemon", OLD, "-id", 0, "daemon-build prevented", "id", SET % "name"),
    "daemon, silent": ("name|name", "--daemon", SILENT, "-name", 0, KEEPS, "name", KEPT),
    "daemon, absent": ("absent|absent", "--daemon", {}, "+absent", 1, NOT_IN, "absent", PULL % "absent"),
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
def test_a_row_of_the_restorer(world: World, case: str) -> None:
    layers = world.layers
    run_image, option, environ, runs, code, row_outcome, reference, says = ROWS[case]
    world.lay(run_image, EXTEND)
    extensions = layers.group.read_bytes()
    phase = world.spy("restorer")
    ended = world.run(phase, "-skip-layers", options=("--strict", *filter(None, [option])), **environ)
    row, outcome = row_outcome.split()
    reference = world.words[reference]
    ended.expect(code=code, row=row, outcome=outcome, reference=reference)
    expected = [f'-skip-layers {layers.note if run[0] == "-" else ""} "{world.words[run[1:]]}"' for run in runs.split()]
    assert world.seen.read_text().splitlines() == expected
    if "-" in runs:
        assert tomllib.loads(layers.note.read_text()).keys() == {"group"}, "what is only an option's isn't noted"
    lines = [line for line in ended.out.splitlines() if line.startswith("analyzed-shim: ")]
    begins, ends = f"analyzed-shim: {world.says(says)}", f" [{outcome}]"
    assert [(line[: len(begins)], line.endswith(ends)) for line in lines] == [(begins, True)] * bool(says)
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
def test_what_else_a_restorer_may_do(world: World, does: str, code: int, outcome: str, words: str) -> None:
    world.lay("name|name")
    fill = {"toml": world.layers.toml, "seen": world.seen}
    ended = world.run(world.phase(does=does.format_map(fill)), options=("--strict",))
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
    "neither": ("absent-digest|absent", {}, 62, 81, "not-in-daemon", "absent-digest", LACKS % ABSENT),
    "nor the name": ("absent|absent", {}, 62, 81, "not-in-daemon", "absent", LACKS % "absent"),
    "silent": ("digest|name", SILENT, 1, 81, "daemon-unknown", "digest", UNASKED % "digest} or {name"),
    "empty": ("|name", {}, 0, 0, "filled", "id", "run-image.reference was empty; set it to {id}, the daemon's"),
    "empty, silent": ("|name", SILENT, 1, 81, "daemon-unknown", "name", UNASKED % "name"),
}  # fmt: skip


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("case", EXPORTS)
def test_a_row_of_the_exporter(world: World, case: str, strict: bool) -> None:
    run_image, environ, code, strict_code, outcome, reference, says = EXPORTS[case]
    world.lay(run_image)
    arguments = ["-daemon"] if strict else []
    environ = environ | ({"ANALYZED_SHIM_STRICT": "true"} if strict else {"CNB_USE_DAEMON": "true"})
    ended = world.run(world.spy("exporter"), *arguments, "app:1", **environ)
    ended.expect(code=strict_code if strict else code, row="exporter", outcome=outcome, build="daemon")
    ended.expect(known_by="-daemon" if strict else "CNB_USE_DAEMON")
    assert world.layers.reference == world.words[reference]
    if strict and strict_code:
        says = says.replace("Warning: ", "ERROR: ")
        assert (world.seen.exists(), ended.report["exit_code"], ended.out.count("\n")) == (False, 81, 1)
    else:
        assert world.seen.read_text() == f'{" ".join((*arguments, "app:1"))}  "{world.words[reference]}"\n'
        assert "exit_code" not in ended.report
    lines = [line for line in ended.out.splitlines() if line.startswith("analyzed-shim: ")]
    told = [world.says(says) in line and line.endswith(f" [{outcome}]") for line in lines]
    assert told == [True] * bool(says), ended.out
    assert len([path for path in world.parts.engine.asked if path.endswith("/json")]) <= 3, "one is the phase's"
    if "DOCKER_HOST" not in environ and code == 0:
        assert world.parts.engine.find("app:1") == f"sha256:{world.parts.id}"


# The analyzer.


@pytest.mark.parametrize(
    ("arguments", "before"),
    [("-daemon app", ""), ("-daemon app", "daemon = false\n"), ("app", "daemon = true\n"), ("app -daemon", "\0[")],
)
def test_the_analyzer_leaves_the_note(unknown: Build, engine: servers.Engine, arguments: str, before: str) -> None:
    note, kind = unknown.layers.note, "daemon" if arguments == "-daemon app" else "registry"
    if before:
        note.write_text(before)
    words = ["-analyzed", str(unknown.layers.toml), *arguments.split()]
    ended = unknown.run(unknown.phase("analyzer", does='echo "$*"', exits=7), *words, CNB_LAYERS_DIR="/no/such")
    ended.expect(code=7, out=f"{' '.join(words)}\n", err="", row="analyzer", outcome="noted", build=kind)
    assert note.read_text().endswith(f"daemon = {str(kind == 'daemon').lower()}\n")
    assert (stat.S_IMODE(note.stat().st_mode), engine.asked) == (0o644, [])


# Nothing to do.

HELP = "only the version or help is asked for"
WITHOUT = "the exporter is called without -daemon"
NO_EXTENSION, NO_SWITCH, HAS_TARGET = "no image extension in ", "no extension switched", "run-image.target.os is set"
NOTHING: dict[str, tuple[str, str, str]] = {
    "version": ("restorer", "-version", HELP),
    "detector": ("detector", "", "detector is not a phase that is wrapped"),
    "no phase": ("true", "", "/true is not a phase that is wrapped"),
    "no extension": ("restorer", "", NO_EXTENSION),
    "an empty list": ("restorer", "", NO_EXTENSION),
    "a target": ("restorer", "", HAS_TARGET),
    "a registry's exporter": ("exporter", "-daemon=false app", WITHOUT),
    "no switch": ("exporter", "-daemon app", NO_SWITCH),
    "an empty image": ("exporter", "app", NO_SWITCH),
    "at 0.12": ("restorer", "-daemon", "at Platform API 0.12"),
}
EXTRA = {"a target": EXTEND + TARGET, "an empty image": '  image = ""\n'}


@pytest.mark.parametrize("case", NOTHING)
def test_nothing_to_do_is_an_exec_as_called(unknown: Build, engine: servers.Engine, case: str) -> None:
    layers, (name, words, reason) = unknown.layers, NOTHING[case]
    image = None if reason == NO_SWITCH else "r:1"
    layers.write("r:1", image, extra=EXTRA.get(case, ""), extensions=reason != NO_EXTENSION)
    layers.group.write_text("group-extensions = []\n" * (case == "an empty list") + layers.group.read_text())
    before = layers.identity()
    unknown.env |= {"CNB_PLATFORM_API": "0.12" if case == "at 0.12" else "0.11", "CNB_USE_DAEMON": "true"}
    phase = unknown.phase(name, does='echo "$* $CNB_GROUP_PATH"', exits=7)
    unknown.run(phase, *words.split(), ANALYZED_SHIM_REPORT="").expect(code=7, out=f"{words} \n", err="")
    ended = unknown.run(phase, *words.split(), options=("--daemon", "--strict"), CNB_LOG_LEVEL="debug")
    outcome = "not-a-daemon-build" if reason is WITHOUT else "passed-through"
    ended.expect(code=7, err="", row="nothing-to-do", outcome=outcome, exit_code=None)
    line, ran = ended.out.split("\n", 1)
    assert line.startswith("analyzed-shim: ") and reason in line and line.endswith(f" [{outcome}]"), line
    assert (ran, reason in ended.report["sentence"]) == (f"{words} \n", True)
    assert (layers.identity(), layers.note.exists(), layers.stray(), engine.asked) == (before, False, set(), [])


# Drop-ins.


@pytest.fixture
def drop_ins(build: Build) -> pathlib.Path:
    """A lifecycle directory with the three drop-ins."""
    directory = build.directory / "cnb"
    directory.mkdir()
    program(directory / "lifecycle", (build.lifecycle / "lifecycle").read_text())
    (directory / "detector").symlink_to("lifecycle")
    for phase in WRAPPED:
        (directory / f"{phase}.real").symlink_to("lifecycle")
        drop_in(directory / phase)
    return directory


@pytest.mark.parametrize("version", ["0.17", "0.20"])
@pytest.mark.parametrize("daemon", [True, False])
def test_drop_ins_need_no_setting(world: World, drop_ins: pathlib.Path, version: str, daemon: bool) -> None:
    """The other ways to wrap a build's phases are test_worlds's."""
    name, parts, report = world.parts.name, world.parts, world.directory / "{phase}.json"
    world.env |= {"STANDIN_VERSION": version, "STANDIN_RUN_IMAGE": name, "STANDIN_SWITCH": name}
    for phase in ("analyzer", "detector", "restorer", "exporter"):
        arguments = (*("-daemon",) * daemon, "app:1") if phase in ("analyzer", "exporter") else ()
        world.call(str(drop_ins / phase), *arguments, ANALYZED_SHIM_REPORT=str(report)).expect(code=0)
    right = parts.id if daemon else world.words["name" if version == "0.17" else "digest"]
    assert world.layers.reference == right
    assert parts.engine.find("app:1") == f"sha256:{parts.id}" if daemon else not parts.engine.asked
    for phase in WRAPPED:
        assert json.loads(pathlib.Path(str(report).format(phase=phase)).read_text())["phase"] == phase


@pytest.mark.parametrize("link", ["bin/x", "bin/exporter", "place/restorer"])
def test_a_drop_in_is_its_own_file_s_phase_by_whatever_link(world: World, drop_ins: pathlib.Path, link: str) -> None:
    """And its path is the real one's argv[0], by which a multi-call program finds its phase."""
    called = drop_ins.parent / link
    if called.parent.name == "place":
        called.parent.symlink_to(drop_ins)
    else:
        called.parent.mkdir()
        called.symlink_to("../cnb/restorer")
    (drop_ins / "restorer.real").unlink()
    (drop_ins / "restorer.real").symlink_to("/bin/sh")
    world.lay("name|name")
    words = ("-c", "tr '\\0' ' ' < /proc/$$/cmdline; echo; echo $*", "--daemon", "-x", "--", "y")
    ended = world.call(str(called), *words, ANALYZED_SHIM_DAEMON="true")
    ended.expect(code=0, phase="restorer", outcome="prevented", known_by="option")
    *_, command, arguments = ended.out.splitlines()
    assert (command.split()[0], arguments) == (f"{drop_ins}/restorer", "-x -- y")


REALS = {
    "missing": (127, "{cnb}/restorer.real not found, the real restorer (put it there, or set ANALYZED_SHIM_RESTO"),
    "a link to itself": (126, "{cnb}/restorer.real is the shim itself (set ANALYZED_SHIM_RESTORER to the"),
    "/no/such": (127, "/no/such not found, the real restorer"),
    "{cnb}/restorer": (126, "{cnb}/restorer is the shim itself"),
    "{cnb}/../own": (5, "real -x"),
}


@pytest.mark.parametrize("kind", REALS)
def test_a_real_phase_that_can_not_be(world: World, drop_ins: pathlib.Path, kind: str) -> None:
    code, words = REALS[kind]
    if "/" not in kind:
        (drop_ins / "restorer.real").unlink()
    if kind == "a link to itself":
        (drop_ins / "restorer.real").symlink_to("restorer")
    program(drop_ins.parent / "own", "#!/bin/sh\necho real $*\nexit 5\n")
    world.lay("name|name")
    world.env["ANALYZED_SHIM_RESTORER"] = kind.format(cnb=drop_ins) if "/" in kind else ""
    ended = world.call(str(drop_ins / "restorer"), "-x", ANALYZED_SHIM_DAEMON="1").expect(code=code, err="")
    assert words.format(cnb=drop_ins) in ended.out


# Its lines and its report.


@pytest.mark.parametrize(
    ("level", "flag", "lines"),
    [("WARN", "", 0), ("banana", "", 1), ("error", "-log-level=info", 1), ("debug", "-log-level=error", 0)],
)
def test_the_log_level_rules_its_lines(world: World, level: str, flag: str, lines: int) -> None:
    world.lay("name|name")
    ended = world.run("restorer", *flag.split(), options=("--daemon",), CNB_LOG_LEVEL=level)
    ended.expect(code=0, reference=world.parts.id, err="")
    assert ended.out.count("analyzed-shim: ") == ended.out.count("\n") == lines


def test_a_group_as_only_a_person_writes_it_is_read_and_not_written(world: World) -> None:
    group = world.layers.group
    for strict, code, reference in (("--no-strict", 0, world.parts.digest), ("--strict", 81, world.parts.name)):
        world.lay("name|name")
        group.write_text('group = [{ id = "bp/a" }]\ngroup-extensions = [{ id = "ext/a" }]\n')
        ended = world.run("restorer", options=("--daemon", strict))
        ended.expect(code=code, row="not-written", outcome="unrepaired", reference=reference)
        assert f"group-extensions can't be left out of {group}" in ended.out
