"""`check --image` on each engine: which images are affected, by which platforms, and what to do."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import jsonschema
import pytest

import shim as package
from shim.demo.lifecycle import ARCHITECTURE
from shim.phase.invocation import WRAPPED
from tests.support import real
from tests.support.build import SCHEMA, SHIM, Build, Ran
from tests.support.images import ETC, OTHER, image, index, lifecycle, member

PACK, JAVA, SCRIPT = "pack", "java-buildpack-client, Quarkus", "a script with CNB_PLATFORM_API 0.10 or 0.11"
PACK_TOO = "pack, with a builder that has 0.11 at most"
ALL = ("0.7", "0.8", "0.9", "0.10", "0.11", "0.12")


def offers(*apis: str, deprecated: tuple[str, ...] = ()) -> dict[str, Any]:
    return {"buildpack": {"supported": ["0.9"]}, "platform": {"deprecated": [*deprecated], "supported": [*apis]}}


def builder(version: str, *apis: str, extensions: bool = True, deprecated: tuple[str, ...] = ()) -> dict[str, str]:
    """The labels that pack gives a builder."""
    parts: dict[str, Any] = {"extensions": [{"id": "standin/ext", "version": "0.1"}]} if extensions else {}
    lifecycle = {"version": version, "apis": offers(*apis, deprecated=deprecated)}
    metadata = {"buildpacks": [{"id": "standin/bp"}], "stack": {}, "lifecycle": lifecycle, **parts}
    return {"io.buildpacks.builder.metadata": json.dumps(metadata)}


def lifecycle_image(version: str, *apis: str) -> dict[str, str]:
    """The labels of a published lifecycle image."""
    legacy = {"lifecycle": {"version": version}, "api": {"buildpack": "0.7", "platform": "0.7"}}
    return {
        "io.buildpacks.lifecycle.version": version,
        "io.buildpacks.lifecycle.apis": json.dumps(offers(*apis)),
        "io.buildpacks.builder.metadata": json.dumps(legacy),
    }


TOML = '[lifecycle]\nversion = "0.19.0"\n[apis.platform]\ndeprecated = ["0.10"]\nsupported = ["0.11", "0.12"]\n'

CASES: dict[str, tuple[dict[str, str], list[Any], str | None, tuple[str, ...], tuple[str, ...], str]] = {
    # labels, more in /cnb/lifecycle, lifecycle, what each of the three platforms takes, who is affected, a word of why
    "builder up to 0.11": (
        builder("0.20.5", *ALL[:5]),
        [],
        "0.20.5",
        ("0.11", "0.10", "0.11"),
        (PACK, JAVA, SCRIPT),
        "",
    ),
    "builder up to 0.12": (builder("0.20.5", *ALL), [], "0.20.5", ("0.12", "0.10", "0.11"), (JAVA, SCRIPT), "looks"),
    "deprecated APIs count": (
        *(builder("0.20.5", "0.12", deprecated=("0.10",)), [], "0.20.5", ("0.12", "0.10", "0.10"), (JAVA, SCRIPT), ""),
    ),
    "newer than pack": (builder("0.30.0", "0.11", "0.99"), [], "0.30.0", ("0.11", "", "0.11"), (PACK, SCRIPT), ""),
    "0.12 only": (builder("0.21.17", "0.12", "0.13"), [], "0.21.17", ("0.13", "", ""), (), "neither"),
    "no extension": (builder("0.20.5", *ALL, extensions=False), [], "0.20.5", (), (), "no image extensions"),
    "0.16": (builder("0.16.5", *ALL[:5]), [], "0.16.5", (), (), "does not rewrite"),
    "0.17": (builder("0.17.0", *ALL[:5]), [], "0.17.0", ("0.11", "0.10", "0.11"), (PACK, JAVA, SCRIPT), ""),
    "a version of its own": (
        builder("v0.20.5+git-1", "0.11"),
        [],
        "0.20.5+git-1",
        ("0.11", "", "0.11"),
        (PACK, SCRIPT),
        "",
    ),
    "lifecycle image": (
        *(lifecycle_image("0.20.5", *ALL), [], "0.20.5", ("0.11", "0.11"), (PACK_TOO, SCRIPT)),
        "if the builder has",
    ),
    "lifecycle.toml": (
        *({}, [member("cnb/lifecycle/lifecycle.toml", TOML.encode())], "0.19.0", ("0.11", "0.11")),
        *((PACK_TOO, SCRIPT), ""),
    ),
    "nothing said": ({}, [], None, ("", ""), (), "does not say"),
    "lifecycle image with 0.12 only": (lifecycle_image("0.21.17", "0.12"), [], "0.21.17", ("", ""), (), "neither"),
    "odd labels": (
        *({"io.buildpacks.builder.metadata": '{"lifecycle":null,"extensions":{}}'}, [], None, (), ()),
        "no image extensions",
    ),
}


@pytest.fixture
def check(real_parts: tuple[real.Engine, real.Registry], build: Build) -> Any:
    engine, _ = real_parts

    def run(name: str, *options: str) -> Ran:
        # As for the docker CLI, certificates are for TLS only, which nobody asks for here.
        environ = {"DOCKER_HOST": engine.url, "DOCKER_CERT_PATH": "/no/certificates"}
        return build.call(*SHIM, "check", "--image", name, *options, **environ)

    return run


def told(check: Any, name: str) -> dict[str, Any]:
    ended = check(name, "--json")
    ended.expect(code=0)
    values: dict[str, Any] = json.loads(ended.out)
    jsonschema.validate(values, SCHEMA)
    lines = check(name)
    assert (lines.code, lines.err) == (0, "")
    assert f"affected:       {'yes' if values['affected'] else 'no'}: {values['reason']}\n" in lines.out
    assert lines.out.endswith(f"to do:          {values['do']}\n")
    return values


@pytest.mark.engines("podman")  # what differs by engine is held by the tests of builder
@pytest.mark.parametrize("case", CASES)
def test_who_is_affected(real_parts: tuple[real.Engine, real.Registry], check: Any, case: str) -> None:
    engine, registry = real_parts
    labels, more, version, takes, affected, why = CASES[case]
    name = registry.push(
        f"check/{case.lower().replace(' ', '-')}:1", image([member(*ETC)], [*lifecycle(), *more], labels=labels)
    )
    engine.pull(name)
    before = {one["Id"] for one in engine.client.images(all=True)}
    values = told(check, name)
    assert {one["Id"] for one in engine.client.images(all=True)} == before
    assert values.get("lifecycle") == version
    assert tuple(one.get("takes", "") for one in values["platforms"]) == takes
    assert tuple(one["platform"] for one in values["platforms"] if one["affected"]) == affected
    assert values["affected"] == bool(affected)
    assert why in values["reason"]
    assert values["platform"] == f"linux/{ARCHITECTURE}"
    of_lifecycle = "builder" not in "".join(labels) or "io.buildpacks.lifecycle.version" in labels
    assert values["kind"] == ("lifecycle image" if of_lifecycle else "builder")
    if affected:
        assert values["do"] == f"analyzed-shim builder {name} --tag NAME"


def test_a_derived_image_has_the_shim(
    real_parts: tuple[real.Engine, real.Registry], check: Any, build: Build, bundle: pathlib.Path
) -> None:
    engine, registry = real_parts
    name = registry.push("check/bare:1", image(lifecycle(), labels=builder("0.20.5", *ALL)))
    tag = f"{registry.host}/check/derived:1"
    command = [*SHIM, "builder", name, "--tag", tag, "--bundle", str(bundle)]
    build.call(*command, DOCKER_HOST=engine.url).expect(code=0)
    values = told(check, tag)
    assert (values["drop_ins"], values["shim"]) == ([*WRAPPED], package.__version__)
    assert (values["affected"], values["do"]) == (False, "nothing")
    assert not any(one["affected"] for one in values["platforms"])
    lines = check(tag).out
    assert f"drop-ins:       analyzer, restorer, exporter (analyzed-shim {package.__version__})\n" in lines


@pytest.mark.engines("podman")
@pytest.mark.parametrize(
    ("labels", "more", "code", "message"),
    [
        ({"io.buildpacks.builder.metadata": "{"}, lifecycle(), 66, "label io.buildpacks.builder.metadata is not JSON"),
        ({}, [*lifecycle(), member("cnb/lifecycle/lifecycle.toml", b"x")], 66, "lifecycle.toml is not valid TOML"),
        ({}, [member(*ETC)], 64, "has no lifecycle in /cnb/lifecycle"),
    ],
    ids=["label", "toml", "no lifecycle"],
)
def test_what_can_t_be_read_is_named(
    real_parts: tuple[real.Engine, real.Registry],
    check: Any,
    labels: dict[str, str],
    more: list[Any],
    code: int,
    message: str,
) -> None:
    engine, registry = real_parts
    name = registry.push("check/odd:1", image(more, labels=labels))
    engine.pull(name)
    ended = check(name)
    assert (ended.code, message in ended.err) == (code, True), ended.err
    assert "Traceback" not in ended.err


def test_an_index_with_another_platform_s_part_only_is_named_or_looked_at(
    real_parts: tuple[real.Engine, real.Registry], check: Any
) -> None:
    """A containerd store can't save it; the other stores have that platform's image, and nothing else."""
    engine, registry = real_parts
    labels = lifecycle_image("0.20.5", *ALL)
    ours, theirs = (image(lifecycle(one), architecture=one, labels=labels) for one in (ARCHITECTURE, OTHER))
    name = registry.push("check/other:1", index((OTHER, theirs), (ARCHITECTURE, ours)))
    engine.pull(name, f"linux/{OTHER}")
    ended = check(name)
    engine.client.remove_image(name)
    if engine.kind == "containerd":
        assert (ended.code, f"doesn't have {name} for its own platform" in ended.err) == (66, True), ended.err
        assert f"(docker pull {name})" in ended.err
    else:
        ended.expect(code=0)
        assert f"a lifecycle image for linux/{OTHER}" in ended.out


def test_an_image_that_is_not_there_is_named(check: Any) -> None:
    ended = check("5" * 64)
    assert (ended.code, f"{'5' * 64} is not in the daemon" in ended.err) == (66, True), ended.err
    ended = check("registry.example/no/such:1")
    ended.expect(code=66, out="")
    assert "registry.example/no/such:1 is not in the daemon (docker pull registry.example/no/such:1)" in ended.err
