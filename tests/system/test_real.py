"""The table of run images against each kind of real engine and a real registry, by each kind of evidence.

What the reference has to be afterwards is what a restorer with `-daemon` writes at Platform API
0.12, in the same state of daemon and registry.

By default the kinds of evidence are tried on one run image, and the Platform APIs by turns: which evidence counts, and
that 0.10 is as 0.11, other tests hold without an engine. With NIGHTLY=1 the whole product is run.
"""

from __future__ import annotations

from typing import Any

import pytest

from shim.demo.lifecycle import ARCHITECTURE
from tests.support import real
from tests.support.build import Build
from tests.support.ground import APIS, CASES, FAILS_BARE, NIGHTLY, SWITCHED, WAYS, Ground, id_in
from tests.support.layers import Layers

KNOWS_THE_DIGEST = {
    "docker": ("single",),
    "podman": ("single", "multi", "pinned"),
    "containerd": ("single",),
}
"""By engine the cases in which it has its image under the architecture's digest too."""


def by_turns(combinations: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
    """Return combinations with a Platform API each: one after the other, or NIGHTLY each with both."""
    if NIGHTLY:
        return [(*combination, api) for combination in combinations for api in APIS]
    return [(*combination, APIS[number % len(APIS)]) for number, combination in enumerate(combinations)]


@pytest.fixture(autouse=True)
def unmeasured(build: Build) -> None:
    """Measuring coverage takes half of the time, and other tests go through the same rows."""
    build.unmeasured()


def before_the_restorer(ground: Ground, case: str, layers: Layers, version: str = "0.20") -> None:
    """Write what the detector leaves: an ID where the run image wasn't switched, and by 0.17 nothing where it was."""
    name = ground.lay(case)
    base = ground.engine.id_of(f"{ground.registry.host}/run/base:1.0")
    assert base
    reference = "" if name and version == "0.17" else name or base
    layers.write(reference, name, extensions=case != "no-extension")


def right_reference(ground: Ground, build: Build, layers: Layers, case: str) -> str:
    """Return what the restorer writes with -daemon at 0.12, now; analyzed.toml is as it was afterwards."""
    before = layers.toml.read_bytes()
    if case not in SWITCHED:  # at 0.12 the analyzer leaves the name and the target too
        base = f"{ground.registry.host}/run/base:1.0"
        layers.write(ground.engine.id_of(base) or "", base, extra='  [run-image.target]\n    os = "linux"\n')
    build.call(
        str(build.lifecycle / "restorer"), "-daemon", CNB_PLATFORM_API="0.12", DOCKER_HOST=ground.engine.url
    ).expect(code=0)
    reference = layers.reference
    layers.toml.write_bytes(before)
    return reference


KNOWN: dict[str, dict[str, Any]] = {
    "option": {"options": ("--daemon",)},
    "variable": {"ANALYZED_SHIM_DAEMON": "true"},
    "note": {},
    "CNB_USE_DAEMON": {"CNB_USE_DAEMON": "true"},
}
VERSIONS = ("0.17", "0.20")


@pytest.mark.parametrize(
    ("version", "evidence", "case", "api"),
    by_turns(
        [
            (version, evidence, case)
            for version in VERSIONS
            for evidence in KNOWN
            for case in CASES
            if NIGHTLY or evidence == "note" or case == "multi"
        ]
    ),
)
def test_known_daemon_builds(
    build: Build, layers: Layers, ground: Ground, evidence: str, case: str, api: str, version: str
) -> None:
    before_the_restorer(ground, case, layers, version)
    start = layers.reference
    environ = {"CNB_PLATFORM_API": api, "DOCKER_HOST": ground.engine.url, "STANDIN_VERSION": version}
    if evidence == "note":
        analyzer = build.run("analyzer", "-daemon", "-analyzed", str(layers.path / "other.toml"), "app", **environ)
        assert analyzer.code == 0, analyzer.out
        (layers.path / "other.toml").unlink()
    ended = build.run("restorer", **environ, **KNOWN[evidence])
    if case == "absent":  # nothing is pulled
        ended.expect(code=0, outcome="not-in-daemon")
        assert "docker pull" in ended.out
        assert layers.reference in (start, ended.report["run_image"]) or "@sha256:" in layers.reference
        return
    ended.expect(
        code=0,
        reference=right_reference(ground, build, layers, case),
        outcome={"no-switch": "no-lookup", "no-extension": "passed-through"}.get(case, "prevented"),
    )
    assert layers.stray() == set()


@pytest.mark.parametrize(
    ("version", "case", "api"), by_turns([(version, case) for version in VERSIONS for case in CASES])
)
def test_unknown_builds(build: Build, layers: Layers, ground: Ground, case: str, api: str, version: str) -> None:
    """From a guess only the name is put back, and a digest that the daemon has stays."""
    before_the_restorer(ground, case, layers, version)
    start = layers.reference
    ended = build.run("restorer", CNB_PLATFORM_API=api, DOCKER_HOST=ground.engine.url, STANDIN_VERSION=version)
    ended.expect(code=0)
    name = ended.report.get("run_image", start)
    if case not in SWITCHED:
        ended.expect(outcome="no-lookup" if case == "no-switch" else "passed-through", reference=start)
    elif version == "0.17":
        ended.expect(outcome="filled", reference=name)
    elif case == "absent":
        ended.expect(outcome="daemon-unknown")
    elif case == "daemon-only":
        ended.expect(outcome="retried", reference=name)
    elif case in KNOWS_THE_DIGEST[ground.engine.kind]:
        ended.expect(outcome="resolves")
        assert ground.engine.id_of(layers.reference) == ground.engine.id_of(name)
    else:
        ended.expect(outcome="reverted", reference=name)


@pytest.mark.parametrize(("case", "api"), by_turns([(case,) for case in CASES]))
@pytest.mark.engines(*(real.ENGINES if NIGHTLY else real.ENGINES[:1]))
def test_no_socket_at_the_restorer_keeps_the_name(
    build: Build, layers: Layers, ground: Ground, case: str, api: str
) -> None:
    before_the_restorer(ground, case, layers)
    start = layers.reference
    ended = build.run("restorer", options=("--daemon",), CNB_PLATFORM_API=api)
    ended.expect(code=0, reference=start)
    if case in SWITCHED:
        ended.expect(outcome="kept-name")


@pytest.mark.parametrize(
    ("way", "case", "api"),
    by_turns(
        [
            (way, case)
            for way in WAYS
            for case in CASES
            if case != "absent" and not (way == "the exporter alone" and case in FAILS_BARE)
        ]
    ),
)
def test_whole_daemon_builds(build: Build, layers: Layers, ground: Ground, way: str, case: str, api: str) -> None:
    name = ground.lay(case)
    base = f"{ground.registry.host}/run/base:1.0"
    app = f"{ground.registry.host}/app/{case}:1"
    environ = {"CNB_PLATFORM_API": api, "DOCKER_HOST": ground.engine.url}
    environ |= {"STANDIN_SWITCH": name} if name else {"STANDIN_EXTENSION": "" if case == "no-extension" else "1"}
    for phase, *arguments in (
        ["analyzer", "-daemon", "-run-image", base, app],
        ["detector"],
        ["restorer"],
        ["exporter", "-daemon", app],
    ):
        here = dict(environ)
        if phase == "restorer" and "no socket" in way:
            del here["DOCKER_HOST"]
        if phase in WAYS[way]:
            ended = build.run(phase, *arguments, **here)
        else:
            ended = build.call(str(build.lifecycle / phase), *arguments, **here)
        assert ended.code == 0, (phase, ended.out + ended.err)
    assert ground.engine.id_of(app) == ground.engine.id_of(name or base)


@pytest.mark.parametrize(
    ("guessed", "case", "api"),
    by_turns([(guessed, case) for guessed in (False, True) for case in ("registry", "registry-no-switch")]),
)
def test_registry_builds_on_a_machine_whose_daemon_answers(
    build: Build, layers: Layers, ground: Ground, case: str, api: str, guessed: bool
) -> None:
    name = ground.lay("multi" if case == "registry" else "no-switch")
    base = f"{ground.registry.host}/run/base:1.0"
    environ = {"CNB_PLATFORM_API": api, "DOCKER_HOST": ground.engine.url}
    environ |= {"STANDIN_SWITCH": name} if name else {"STANDIN_EXTENSION": "1"}
    after: list[str] = []
    for phase, *arguments in (["analyzer", "-run-image", base, "app"], ["detector"], ["restorer"], ["exporter", "app"]):
        if phase == "detector" or (phase == "analyzer" and guessed):
            ended = build.call(str(build.lifecycle / phase), *arguments, **environ)
        else:
            ended = build.run(phase, *arguments, **environ)
        assert ended.code == 0, (phase, ended.out + ended.err)
        after.append(layers.reference)
    digest = f"{ground.registry.host}/run/multi@{ground.images['multi'].manifest_digest(ARCHITECTURE)}"
    if case == "registry-no-switch":
        assert after[0] == after[-1] == f"{ground.registry.host}/run/base@{ground.images['base'].digest}"
    elif guessed and "multi" not in KNOWS_THE_DIGEST[ground.engine.kind]:
        assert after[2] == after[3] == name  # which the registry has too
    else:
        assert after[2] == after[3] == digest


def test_an_image_for_another_platform_is_not_there(build: Build, layers: Layers, ground: Ground) -> None:
    """An arm64 pull before an amd64 build: the restorer's lookup stays, and the exporter says what to pull."""
    other = "arm64" if ARCHITECTURE == "amd64" else "amd64"
    base = ground.lay("no-switch") or ground.pushed("run/other:1.0", "multi")
    ground.engine.pull(base, platform=f"linux/{other}")
    layers.write(base, base)
    command = f"docker pull --platform linux/{ARCHITECTURE} {base}"
    ended = build.run("restorer", options=("--daemon",), DOCKER_HOST=ground.engine.url)
    ended.expect(code=0, outcome="not-in-daemon")
    assert "@sha256:" in layers.reference
    assert command in ended.out
    layers.write(base, base)
    ended = build.run(build.phase("exporter"), "-daemon", DOCKER_HOST=ground.engine.url)
    ended.expect(code=0, outcome="not-in-daemon", reference=base)
    assert command in ended.out


@pytest.mark.parametrize("case", ["multi", "single"])
def test_what_an_engine_knows_of_an_image_that_was_pulled_by_its_tag(ground: Ground, case: str) -> None:
    """The facts in which engines differ, as the docs' page about them has them."""
    name = str(ground.lay(case))
    image, engine = ground.images[case], ground.engine
    repository = name.rpartition(":")[0]
    found = engine.client.inspect_image(name)  # type: ignore[no-untyped-call]
    assert str(found["Id"]).removeprefix("sha256:") == id_in(engine, image)
    known = {image.digest} | ({image.manifest_digest(ARCHITECTURE)} if engine.kind == "podman" else set())
    assert {digest for digest in found["RepoDigests"] if digest.startswith(repository)} == {
        f"{repository}@{digest}" for digest in known
    }
    resolves = engine.id_of(f"{repository}@{image.manifest_digest(ARCHITECTURE)}")
    assert resolves == (id_in(engine, image) if case in KNOWS_THE_DIGEST[engine.kind] else None)


def test_the_daemon_finds_a_name_by_any_spelling(build: Build, layers: Layers, ground: Ground) -> None:
    ground.lay("multi")
    multi = ground.engine.id_of(f"{ground.registry.host}/run/multi:1.0")
    ground.engine.tag(str(multi), "analyzed-shim-run:1.0")
    try:
        for spelling in ("analyzed-shim-run:1.0", "library/analyzed-shim-run:1.0", "docker.io/analyzed-shim-run:1.0"):
            layers.write(spelling, spelling)
            build.run("restorer", options=("--daemon",), DOCKER_HOST=ground.engine.url).expect(code=0, reference=multi)
    finally:
        ground.engine.forget("analyzed-shim-run")
