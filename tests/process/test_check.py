"""check: which build it is, what the restorer and the shim would do, what is wrong, and that nothing is changed."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jsonschema
import pytest

from shim.daemon.platform import own_platform
from shim.demo import images, servers
from shim.demo.lifecycle import ARCHITECTURE
from shim.phase.settings import PULL_POLICIES
from shim.policy.facts import Facts
from shim.tools.scenarios import SCENARIOS, scenario_of
from tests.support import real
from tests.support.build import SCHEMA, SHIM, Build
from tests.support.layers import ID, Layers
from tests.support.parts import Parts
from tests.support.processes import program


def check(build: Build, *options: str, **environ: str) -> dict[str, Any]:
    """What is said to a script, after a look at whether a person is told the same."""
    told = as_json(build, *options, **environ)
    lines = build.call(*SHIM, "check", *options, **environ)
    assert lines.code == 0
    assert f" [{told['outcome']}]\n" in lines.out
    for finding in told["findings"]:
        assert finding["what"]
        assert finding["do"]
        assert f"{finding['severity']}: {finding['what']}" in lines.out
        assert f"\n  {finding['do']}" in lines.out
    return told


def as_json(build: Build, *options: str, **environ: str) -> dict[str, Any]:
    ended = build.call(*SHIM, "check", "--json", *options, **environ)
    ended.expect(code=0)
    told: dict[str, Any] = json.loads(ended.out)
    jsonschema.validate(told, SCHEMA)
    return told


def whats(told: dict[str, Any]) -> str:
    return "\n".join(finding["what"] for finding in told["findings"])


def severity(told: dict[str, Any], what: str) -> str:
    """How bad the one finding is that says this."""
    (found,) = [finding["severity"] for finding in told["findings"] if what in finding["what"]]
    return str(found)


def test_nothing_is_changed_and_nothing_pulled(build: Build, layers: Layers, parts: Parts) -> None:
    name = parts.registry.push("run/new:1.0", parts.image)
    layers.write(name, name)
    before = layers.identity()
    told = check(build, "--pull-policy", "always", **parts.at)
    assert layers.identity() == before
    assert not any("POST" in asked for asked in parts.engine.asked)
    assert layers.stray() == set()
    assert f"{name} is not in the daemon" in whats(told)


@pytest.mark.parametrize(
    ("options", "environ", "kind", "certainty", "evidence", "row", "outcome"),
    [
        (("--daemon",), {}, "daemon", "known", "option", "daemon-build", "prevented"),
        (("--no-daemon",), {}, "registry", "known", "option", "registry-build", "not-a-daemon-build"),
        (("--pull-policy", "always"), {}, "daemon", "known", "pull policy", "daemon-build", "prevented"),
        (("--pull-policy", "never"), {}, "daemon", "known", "pull policy", "daemon-build", "prevented"),
        ((), {"CNB_USE_DAEMON": "true"}, "daemon", "known", "CNB_USE_DAEMON", "daemon-build", "prevented"),
        ((), {}, "daemon", "likely", "the daemon", "likely: reverted", "reverted"),
        (("--docker-host", "unix:///no/such"), {}, None, "unknown", None, "unknown: rewritten", "daemon-unknown"),
        (
            ("--docker-host", "unix:///no/such", "--daemon"),
            {},
            "daemon",
            "known",
            "option",
            "daemon-out-of-reach",
            "kept-name",
        ),
        (("--platform-api", "0.12"), {}, None, "likely", None, "nothing-to-do: Platform API", "passed-through"),
    ],
)
def test_which_build_it_is_and_what_the_shim_does(
    build: Build,
    layers: Layers,
    parts: Parts,
    options: tuple[str, ...],
    environ: dict[str, str],
    kind: str | None,
    certainty: str,
    evidence: str | None,
    row: str,
    outcome: str,
) -> None:
    layers.write(parts.name, parts.name)
    told = check(build, *options, **environ, **parts.at)
    assert (told["row"], told["outcome"]) == (row, outcome)
    if "--platform-api" not in options:
        assert (told.get("build"), told["certainty"], told.get("evidence")) == (kind, certainty, evidence)
        assert told["scenario"] == "rewrite"
        assert told["run_image"] == parts.name


def test_what_check_foresees_is_what_run_does(build: Build, layers: Layers, parts: Parts) -> None:
    for number, (reference, image) in enumerate(((parts.name, parts.name), (ID, None), ("", "absent"))):
        for options in ((), ("--daemon",), ("--no-daemon",), *(("--pull-policy", policy) for policy in PULL_POLICIES)):
            name = image
            if image == "absent":  # from the daemon: a name of its own each time, as the first run pulls it
                reference = name = parts.registry.push(f"run/absent{number}-{'-'.join(options)}:1.0", parts.image)
            layers.write(reference, name)
            told = as_json(build, *options, **parts.at)
            ended = build.run("restorer", options=options, **parts.at)
            assert (told["outcome"], told["row"]) == (ended.outcome, ended.report["row"]), (reference, options)
            if image == "absent":
                assert ("would be pulled" in whats(told)) == bool(ended.report.get("pulled"))


def test_a_variable_is_read_as_run_reads_it(build: Build, layers: Layers) -> None:
    layers.write("r:1", "r:1")
    for command in (("check",), ("fix",), ("run", "--", str(build.lifecycle / "restorer"))):
        for name in ("ANALYZED_SHIM_DAEMON", "ANALYZED_SHIM_STRICT"):
            ended = build.call(*SHIM, *command, **{name: "yes"})
            if "check" in command and "STRICT" in name:
                ended.expect(code=0)
            else:
                assert (ended.code, f"{name} is 'yes' (it takes true or false)" in ended.err) == (64, True), ended.err
    told = check(build, ANALYZED_SHIM_DAEMON="T")
    assert (told["build"], told["evidence"]) == ("daemon", "option")
    assert check(build, "--no-daemon", ANALYZED_SHIM_DAEMON="yes")["build"] == "registry"


def test_the_real_restorer_is_asked_for_its_version_at_an_affected_api(
    build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    layers.write("r:1", "r:1")
    lifecycle = tmp_path / "cnb"
    lifecycle.mkdir()
    program(lifecycle / "restorer", "#!/bin/sh\necho 9.9.9\n")
    program(lifecycle / "lifecycle", "#!/bin/sh\necho 8.8.8\n")
    program(lifecycle / "restorer.real", '#!/bin/sh\n[ "$CNB_PLATFORM_API $1" = "0.11 -version" ] && echo 0.20.5+x\n')
    assert check(build, "--lifecycle", str(lifecycle))["lifecycle"] == "0.20.5"
    program(lifecycle / "restorer.real", "#!/bin/sh\nprintf '\\377'\n")
    assert "lifecycle" not in check(build, "--lifecycle", str(lifecycle))


def test_the_scenarios_are_told_apart_by_the_lifecycle_s_version(
    build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    for version, image, scenario in (
        ("0.16.5", "r:1", "old lifecycle"),
        ("0.17.7", "r:1", "empty reference"),
        ("0.17.7", None, "no switch, old lifecycle"),
        ("0.20.5", "r:1", "rewrite"),
        ("0.20.5", None, "crash"),
        ("banana", None, "crash"),
    ):
        layers.write("r:1", image)
        build.phase(does=f"echo {version}+abc")
        told = check(build, "--lifecycle", str(tmp_path))
        assert told["scenario"] == scenario
        assert told.get("lifecycle") == (version if version[0] == "0" else None)
    program(tmp_path / "restorer", "no program")
    assert "lifecycle" not in check(build, "--lifecycle", str(tmp_path))


def test_every_scenario_is_reached() -> None:
    reached = {
        scenario_of(facts, version).name
        for version in (None, (0, 16, 5), (0, 17, 7), (0, 20, 5))
        for facts in (
            Facts(phase="restorer"),
            Facts(phase="restorer", api="newer"),
            Facts(phase="restorer", api="unset"),
            Facts(phase="restorer", group="missing"),
            Facts(phase="restorer", extensions=False),
            Facts(phase="restorer", analyzed="broken"),
            Facts(phase="restorer", target=True),
            Facts(phase="restorer", image=False),
        )
    }
    assert reached == {scenario.name for scenario in SCENARIOS}


def test_what_is_wrong_with_the_files(build: Build, layers: Layers) -> None:
    assert severity(check(build), f"{layers.group} not found") == "warning"
    layers.write("r:1", "r:1")
    layers.toml.write_text("[")
    assert severity(check(build), f"{layers.toml} is not valid TOML") == "error"
    layers.toml.write_text("")
    assert severity(check(build), "has no [run-image]") == "error"
    layers.write("r:1", "r:1")
    layers.note.write_text("banana")
    assert severity(check(build), str(layers.note)) == "warning"
    assert severity(check(build, CNB_PLATFORM_API=""), "CNB_PLATFORM_API is not set") == "warning"
    assert severity(check(build, CNB_BUILD_IMAGE="b:1"), "-build-image") == "note"


def test_what_is_wrong_with_the_daemon(
    build: Build, layers: Layers, engine: servers.Engine, tmp_path: pathlib.Path
) -> None:
    layers.write("r:1", "r:1")
    (tmp_path / "file").write_text("")
    given: tuple[tuple[tuple[str, ...], str], ...] = (
        (("--daemon",), "warning"),
        ((), "note"),
        (("--no-daemon",), "note"),
    )
    for options, of_build in given:
        told = check(build, *options, CNB_USE_DAEMON="true" if "--daemon" in options else "")
        assert severity(told, "no-such.sock not found") == of_build
        assert ("nothing, in a registry build" in [one["do"] for one in told["findings"]]) == ("--no-daemon" in options)
        not_one = check(build, *options, DOCKER_HOST=f"unix://{tmp_path}/file")
        assert severity(not_one, "is not a socket") == of_build
    layers.write("r:1", "r:1", extensions=False)  # nothing to do, so the shim itself wouldn't look at the daemon
    assert severity(check(build, DOCKER_HOST=f"unix://{tmp_path}/file"), "is not a socket") == "note"
    layers.write("r:1", "r:1")
    told = check(build, "--daemon", CNB_USE_DAEMON="true")
    assert severity(told, "CNB_USE_DAEMON is set, but no daemon can be used") == "warning"
    for options, how_bad, what in (
        (("--daemon",), "warning", "r:1 is not in the daemon; it would be pulled"),
        (("--pull-policy", "never"), "error", "r:1 is not in the daemon"),
        ((), "note", "r:1 is not in the daemon"),
    ):
        told = check(build, *options, DOCKER_HOST=engine.url)
        assert told["findings"][0] == {
            "severity": how_bad,
            "what": what,
            "do": f"docker pull --platform {own_platform()} r:1",
        }
    layers.write("", None)
    assert check(build, DOCKER_HOST=engine.url)["daemon"]["store"] == "memory"


class ForAnotherPlatform(servers.Engine):
    """Has a name's index with another platform's content only, as the containerd store can."""

    def _answer_about_image(self, request: Any, path: str, query: dict[str, str]) -> None:
        there = {
            "Kind": "image",
            "Available": True,
            "ImageData": {"Platform": {"os": "linux", "architecture": "s390x"}},
        }
        found = {"Id": f"sha256:{ID}", "Os": "", "Architecture": "", "RootFS": {}, "Manifests": [there]}
        request.reply(200, found)


def test_an_image_that_is_there_for_another_platform_only_is_not_the_run_image(
    build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    layers.write("r:1", "r:1")
    engine = ForAnotherPlatform(str(tmp_path / "other.sock"))
    told = check(build, "--daemon", DOCKER_HOST=engine.url)
    assert "for another platform only (linux/s390x); it would be pulled" in whats(told)
    ended = build.run("restorer", options=("--pull-policy", "never"), DOCKER_HOST=engine.url)
    engine.stop()
    ended.expect(code=80, outcome="not-in-daemon", reference="r:1")


def test_what_is_wrong_with_the_installation(build: Build, layers: Layers, tmp_path: pathlib.Path) -> None:
    layers.write("r:1", "r:1")
    (tmp_path / "restorer.real").symlink_to("lifecycle")
    told = check(build, "--lifecycle", str(tmp_path))
    assert severity(told, "drop-ins for restorer, but not for analyzer, exporter") == "warning"
    assert told["wrapped"] == ["restorer"]
    assert severity(check(build, "--platform-api", "0.12"), "takes -daemon") == "note"
    program(tmp_path / "restorer.real", "#!/bin/sh\necho 0.16.0\n")
    assert severity(check(build, "--lifecycle", str(tmp_path)), "up to 0.16") == "note"


@pytest.mark.skipif(os.getuid() != 0, reason="needs a socket of another user, so root")
def test_real_parts(build: Build, layers: Layers, real_parts: tuple[real.Engine, real.Registry]) -> None:
    engine, registry = real_parts
    environ = {"DOCKER_HOST": engine.url}
    try:
        name = registry.push("run/check:1.0", images.multi("check"))
        engine.pull(name)
        layers.write(name, name)
        told = check(build, "--registry", **environ)
        assert told["certainty"] == "likely"
        if engine.kind == "podman":  # which knows more digests, and whose socket can't be told to ask the registry
            assert told["daemon"]["name"] == "Podman"
            assert [finding["severity"] for finding in told["findings"]] == ["note", "note"]
            return
        assert told["daemon"]["name"] == "Docker"
        store = "with the containerd image store, an image's ID is its index digest"
        assert whats(told) == (store if engine.kind == "containerd" else "")
        registry.push("run/check:1.0", images.multi("moved"))
        told = check(build, "--registry", **environ)
        assert severity(told, f"the registry has another image under {name}") == "warning"
        local = f"{registry.host}/run/local:1.0"
        engine.tag(name, local)
        layers.write(local, local)
        assert severity(check(build, "--registry", **environ), f"the registry does not have {local}") == "note"
        foreign = "arm64" if ARCHITECTURE == "amd64" else "amd64"
        other = registry.push("run/foreign:1.0", images.single("foreign", foreign))
        engine.pull(other)
        layers.write(other, other)
        assert severity(check(build, **environ), f"{other} is for linux/{foreign}") == "error"
    finally:
        engine.forget(registry.host)
