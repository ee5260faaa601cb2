"""`builder` and `check --image` on each kind of daemon, on what images can have in them and what can go wrong."""

from __future__ import annotations

import gc
import io
import json
import os
import pathlib
import tarfile
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import docker
import pytest

from shim import __version__
from shim.call import WRAPPED
from shim.demo.images import index
from shim.demo.lifecycle import ARCHITECTURE
from shim.errors import ShimError, WrongUse
from shim.image import _extract as extract
from shim.image import builder, check_image
from shim.install import NAME
from tests.support import real
from tests.support.images import ETC, METADATA, OTHER, image, lifecycle, member

APIS = "io.buildpacks.lifecycle.apis"
VERSION = "io.buildpacks.lifecycle.version"
HAS = {METADATA: json.dumps({"buildpacks": [], "stack": {}, "extensions": [{"id": "x"}]})}
HAS_NOT = {METADATA: json.dumps({"buildpacks": [], "stack": {}, "extensions": None})}
PATH = "PATH=/usr/bin"

# docker-py leaves the socket of an answer that is an error to the garbage collector.
pytestmark = pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")

Parts = tuple[real.Engine, real.Registry]


@pytest.fixture(autouse=True)
def collected() -> Iterator[None]:
    """Have what is left to the garbage collector collected by the test that leaves it."""
    yield
    gc.collect()


def offers(*apis: str, version: str = "0.20.5") -> dict[str, str]:
    return {APIS: json.dumps({"platform": {"deprecated": [], "supported": apis}}), VERSION: version}


def derive(engine: real.Engine, name: str, tag: str, push: bool = False) -> tuple[str, list[str]]:
    told: list[str] = []
    return builder(name, tag, push, engine.url, told.append), told


def inspect(engine: real.Engine, name: str) -> dict[str, Any]:
    return dict(engine.client.inspect_image(name))  # type: ignore[no-untyped-call]


def left(engine: real.Engine) -> tuple[list[Any], list[Any]]:
    """The containers, and the images without a name."""
    return engine.client.containers(all=True), engine.client.images(filters={"dangling": True}, quiet=True)


def top_layer(engine: real.Engine, name: str) -> dict[str, tarfile.TarInfo]:
    """What the image's topmost layer has."""
    saved = io.BytesIO(b"".join(engine.client.get_image(name)))
    with tarfile.open(fileobj=saved) as whole:
        manifest = json.load(whole.extractfile("manifest.json") or io.BytesIO())
        content = whole.extractfile(manifest[0]["Layers"][-1])
        assert content
        with tarfile.open(fileobj=content) as layer:
            return {one.name.rstrip("/"): one for one in layer}


def files_of(layer: dict[str, tarfile.TarInfo]) -> dict[str, tuple[int, str, int]]:
    """What a layer has in the lifecycle directory."""
    return {path: (one.mode, one.linkname, one.size) for path, one in layer.items() if "cnb/lifecycle" in path}


@pytest.mark.parametrize("kind", ["builder", "lifecycle-image"])
def test_a_copy_has_the_whole_directory_on_top_and_all_else_as_it_was(real_parts: Parts, kind: str) -> None:
    engine, registry = real_parts
    above = [[member("etc/more", b"x")]] if kind == "builder" else []
    labels = {**offers("0.11"), **(HAS if kind == "builder" else {})}
    own = image([member(*ETC)], lifecycle(), *above, **labels)
    both = index({OTHER: image(lifecycle(OTHER), architecture=OTHER), ARCHITECTURE: own})
    name = registry.push(f"image/{kind}:1", own if kind == "builder" else both)
    repository = f"{registry.host}/image/{kind}-shim"
    tag = f"{repository}:{engine.kind}"
    made, told = derive(engine, name, tag, push=kind == "builder")
    if kind == "builder":
        assert made == f"{repository}@{registry.digest(f'image/{kind}-shim', engine.kind)}"
        assert any(line.startswith("pushing ") for line in told)
    else:
        assert made.removeprefix("sha256:") == engine.id_of(tag)
        first = top_layer(engine, tag)
        derive(engine, tag, tag)  # all files are new again: none may be left out as being in the layer below
    assert inspect(engine, tag)["Architecture"] == ARCHITECTURE
    layer = top_layer(engine, tag)
    if kind != "builder":
        assert files_of(layer) == files_of(first)
    below = [one[0].name for one in lifecycle() if not one[0].isdir()]
    assert layer.keys() >= {*below, *(f"cnb/lifecycle/{phase}.real" for phase in WRAPPED)}
    assert f"cnb/lifecycle/{NAME}/bin/python3" in layer
    for path, one in layer.items():
        if path.startswith("cnb/lifecycle/"):
            assert (one.uid, one.gid) == (0, 0), path
    for phase in WRAPPED:
        assert layer[f"cnb/lifecycle/{phase}.real"].linkname == "lifecycle"
        assert (layer[f"cnb/lifecycle/{phase}"].isreg(), layer[f"cnb/lifecycle/{phase}"].mode & 0o777) == (True, 0o755)
    before, after = inspect(engine, name)["Config"], inspect(engine, tag)["Config"]
    assert after["Labels"].pop("analyzed-shim.version") == __version__
    after["Labels"].pop("io.buildah.version", None)  # which Podman adds
    assert after["Env"][: len(before["Env"])] == before["Env"]
    assert [one.startswith("PATH=") for one in after["Env"][len(before["Env"]) :]] in ([], [True])  # if it had none
    for key in ("User", "Labels", "WorkingDir"):
        assert after[key] == before[key], key
    for key in ("Cmd", "Entrypoint", "Volumes", "ExposedPorts", "OnBuild", "StopSignal"):
        assert (after.get(key) or None) == (before.get(key) or None), key
    assert left(engine) == ([], [])


@pytest.mark.engines("docker")
def test_a_push_that_is_refused_is_a_line_and_the_copy_stays(real_parts: Parts) -> None:
    engine, registry = real_parts
    name = registry.push("image/refused:1", image([member(*ETC)], lifecycle()))
    with pytest.raises(ShimError, match=r"^pushing 127\.0\.0\.1:1/refused:1: "):
        derive(engine, name, "127.0.0.1:1/refused:1", push=True)
    assert engine.id_of("127.0.0.1:1/refused:1")
    engine.client.remove_image("127.0.0.1:1/refused:1")
    assert left(engine) == ([], [])


def test_another_architecture_is_refused_before_anything_is_copied(real_parts: Parts) -> None:
    engine, registry = real_parts
    single = registry.push("image/other:1", image(lifecycle(OTHER), architecture=OTHER))
    told: list[str] = []
    with pytest.raises(ShimError, match=OTHER) as problem:
        builder(single, f"{registry.host}/image/none:1", False, engine.url, told.append)
    assert not any("copying" in line for line in told)
    if isinstance(problem.value, WrongUse):  # else the daemon refused to pull it
        assert f"docker pull --platform linux/{ARCHITECTURE}" in problem.value.tip


BAD_TAGS = ["", "A", "a b", "a:b:c", "-a", "a/", "a:", "a//b", "a@sha256:" + "0" * 64, "a:" + "x" * 129, "../a", "a\n"]


@pytest.mark.parametrize("tag", [*BAD_TAGS, "x/" * 260])
def test_a_bad_tag_is_refused_before_a_daemon_is_asked(tag: str) -> None:
    with pytest.raises(WrongUse, match="can't be a new image's tag"):
        builder("a", tag, False, "unix:///no/such.sock", print)


@pytest.mark.engines("docker")
@pytest.mark.parametrize("name", ["", "a b", "../../containers/x", "a@sha256:0", "--help", "a?b", "\x1b[31m"])
def test_what_is_not_a_reference_is_refused(real_engine: real.Engine, name: str) -> None:
    for act in (
        lambda: builder(name, "a", False, real_engine.url, print),
        lambda: check_image(name, real_engine.url, print),
    ):
        with pytest.raises(WrongUse, match="is not an image reference") as problem:
            act()
        assert str(problem.value).isprintable()


ODD: dict[str, tuple[Callable[[], list[Any]], str]] = {
    "no lifecycle": (lambda: [member("cnb/x", b"")], "has no lifecycle in /cnb/lifecycle"),
    "a file": (lambda: [member("cnb/lifecycle", b"x")], "has no lifecycle in /cnb/lifecycle"),
    "a link": (lambda: [member("cnb/lifecycle", link="/etc")], "has no lifecycle in /cnb/lifecycle"),
    "a pipe": (lambda: [*lifecycle(), member("cnb/lifecycle/x", kind=tarfile.FIFOTYPE)], "no file such as lifecycle/x"),
    "another wrapper": (lambda: [*lifecycle(), member("cnb/lifecycle/restorer.real", b"x")], "another wrapper's"),
    "too many files": (lambda: [*lifecycle(), *(member(f"cnb/lifecycle/{n}", b"") for n in range(10_001))], "larger"),
    "too large": (
        lambda: [*lifecycle(), *(member(f"cnb/lifecycle/{n}", bytes(150_000_000)) for n in range(4))],
        "larger",
    ),
}


@pytest.mark.engines("docker")
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_image_ends_in_a_line_and_leaves_nothing(
    real_parts: Parts, odd: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine, registry = real_parts
    members, said = ODD[odd]
    name = registry.push(f"image/odd-{odd.replace(' ', '-')}:1", image([member(*ETC)], members()))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    with pytest.raises(ShimError, match=said) as problem:
        derive(engine, name, f"{registry.host}/image/none:1")
    assert str(problem.value).isprintable()
    assert left(engine) == ([], [])
    assert os.listdir(tmp_path) == []
    assert engine.id_of(f"{registry.host}/image/none:1") is None
    engine.client.remove_image(name)


@pytest.mark.parametrize("name", ["../x", "/x", "lifecycle/../x", "lifecycle/link/x", "other/x", "lifecycle/a"])
def test_nothing_is_extracted_outside_or_over_something(tmp_path: pathlib.Path, name: str) -> None:
    (tmp_path / "outside").mkdir()
    members = [member("lifecycle", kind=tarfile.DIRTYPE), member("lifecycle/a", b"a")]
    members += [member("lifecycle/link", link=str(tmp_path / "outside")), member(name, b"x")]
    with tarfile.open(tmp_path / "t.tar", "w") as archive:
        for header, content in members:
            archive.addfile(header, io.BytesIO(content))
    with tarfile.open(tmp_path / "t.tar") as archive, pytest.raises((ShimError, FileExistsError)):
        extract(archive, archive.getmembers(), tmp_path / "target")
    assert os.listdir(tmp_path / "outside") == []
    assert sorted(os.listdir(tmp_path)) == ["outside", "t.tar", "target"]
    assert (tmp_path / "target" / "lifecycle" / "a").read_bytes() == b"a"


@pytest.mark.engines("docker")
def test_what_a_client_s_set_up_brings_about_is_a_line(
    real_engine: real.Engine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    for text in ('{"auths": {"r": {"auth": null}}}', "[]", '{"proxies": null}', '{"credsStore": "no-such"}', "{"):
        (tmp_path / "config.json").write_text(text)
        with pytest.raises(ShimError) as problem:
            check_image("127.0.0.1:1/no/such", real_engine.url, print)
        assert str(problem.value).isprintable()
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path / "none"))
    for address in ("unix:///no/such.sock", "tcp://user:word@127.0.0.1:1", "nonsense://user:word@x"):
        with pytest.raises(ShimError, match=r"^connecting to the daemon: ") as failed:
            check_image("a", address, print)
        assert "word" not in str(failed.value)


@pytest.mark.engines("docker")
def test_the_daemon_is_the_docker_cli_s(
    real_engine: real.Engine, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DOCKER_CONFIG", str(tmp_path))
    (tmp_path / "config.json").write_text("{}")  # contexts are beside it
    docker.ContextAPI.create_context("mine", host=real_engine.url)
    current = {"DOCKER_HOST": "", "DOCKER_CONTEXT": ""}
    for variables in ({"DOCKER_CONTEXT": "mine"}, {"DOCKER_HOST": real_engine.url, "DOCKER_CONTEXT": "gone"}, {}):
        if not variables:
            docker.ContextAPI.set_current_context("mine")
        for name, value in {**current, **variables}.items():
            monkeypatch.setenv(name, value)
        with pytest.raises(ShimError, match=r"^pulling 127\.0\.0\.1:1/none:1: "):
            check_image("127.0.0.1:1/none:1", None, print)
    monkeypatch.delenv("DOCKER_HOST", raising=False)
    monkeypatch.setenv("DOCKER_CONTEXT", "gone")
    with pytest.raises(ShimError, match="context was not found"):
        check_image("a", None, print)


AFFECTED: dict[str, tuple[dict[str, str], str, dict[str, str]]] = {
    "old APIs": (
        {**HAS, **offers("0.9", "0.10", "0.11")},
        "yes",
        {"java-buildpack-client": "yes", "pack": "yes", "scripts": "yes"},
    ),
    "new APIs": ({**HAS, **offers("0.10", "0.11", "0.12")}, "yes", {"java-buildpack-client": "yes", "pack": "no"}),
    "no 0.10": ({**HAS, **offers("0.11")}, "yes", {"java-buildpack-client": "no", "pack": "yes"}),
    "newer APIs only": ({**HAS, **offers("0.12")}, "no", {}),
    "lifecycle 0.16": ({**HAS, **offers("0.10", version="0.16.5")}, "no", {}),
    "no extensions": ({**HAS_NOT, **offers("0.10")}, "no", {}),
    "a lifecycle image": (offers("0.10", "0.12"), "unknown", {"pack": "no"}),
    "no labels": ({}, "unknown", {}),
    "in the metadata": (
        {
            METADATA: json.dumps(
                {"extensions": [1], "lifecycle": {"version": "0.18.0", "apis": {"platform": {"supported": ["0.10"]}}}}
            )
        },
        "yes",
        {"pack": "yes"},
    ),
    "brackets": ({APIS: "[" * 100_000, METADATA: "[" * 100_000, VERSION: "9" * 100_000}, "unknown", {}),
    "escapes": ({VERSION: "\x1b[31m\n::set-output name=x::y"}, "unknown", {}),
}


@pytest.mark.parametrize("labels", AFFECTED)
@pytest.mark.engines("docker")
def test_who_is_affected(real_parts: Parts, labels: str) -> None:
    engine, registry = real_parts
    given, answer, platforms = AFFECTED[labels]
    name = registry.push(f"image/check-{labels.replace(' ', '-').lower()}:1", image(lifecycle(), **given))
    lines = check_image(name, engine.url, lambda _: None)
    assert all(line.isprintable() for line in lines)
    assert f"affected: {answer}" in [":".join(line.split(":")[:2]) for line in lines]
    for platform, affected in platforms.items():
        (line,) = (line for line in lines if line.startswith(platform))
        assert line.endswith(affected), line
    assert any(line.startswith("to do:") for line in lines) == bool(platforms)


@pytest.mark.engines("docker")
def test_labels_of_odd_shapes_end_in_a_line(real_parts: Parts) -> None:
    engine, registry = real_parts
    labels = {APIS: '{"platform": {"supported": 5}}', METADATA: '{"lifecycle": 7, "extensions": NaN}'}
    name = registry.push("image/shapes:1", image(lifecycle(), **labels))
    with pytest.raises(ShimError) as problem:
        check_image(name, engine.url, lambda _: None)
    assert str(problem.value).isprintable()


@pytest.mark.engines("docker")
def test_the_drop_ins_are_found(real_parts: Parts) -> None:
    engine, registry = real_parts
    name = registry.push("image/found:1", image([member(*ETC)], lifecycle(), **HAS, **offers("0.10")))
    assert "drop-ins: none" in check_image(name, engine.url, lambda _: None)
    derive(engine, name, f"{registry.host}/image/found-shim:1")
    lines = check_image(f"{registry.host}/image/found-shim:1", engine.url, lambda _: None)
    assert f"drop-ins: analyzer, restorer, exporter (analyzed-shim {__version__})" in lines
    assert "affected: no: the drop-ins are installed" in lines
    assert left(engine)[0] == []
