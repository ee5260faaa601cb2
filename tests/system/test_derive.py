"""`builder` on each engine, layer by layer; and what an image's archive may hold."""

from __future__ import annotations

import gzip
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
from typing import Any

import pytest

from shim.demo.lifecycle import ARCHITECTURE
from shim.errors import ShimError
from shim.phase.invocation import WRAPPED
from shim.tools import archive, derive, elf, install, pack
from shim.tools.labels import METADATA
from tests.support import real
from tests.support.build import SHIM, Build, Ran
from tests.support.images import BUILDER, ETC, OTHER, image, index, lifecycle, member, packed, program
from tests.support.mounts import in_mount_namespace
from tests.support.needs import needs_root


def layers_of(engine: real.Engine, name: str, directory: pathlib.Path) -> tuple[archive.Saved, list[dict[str, str]]]:
    """What the daemon has of an image: its configuration, and the names in each layer with what they are."""
    path = directory / f"saved-{len(list(directory.glob('saved-*')))}.tar"
    path.write_bytes(b"".join(engine.client.get_image(name)))
    saved = archive.read(path)
    found = []
    with tarfile.open(path) as whole:
        for layer in saved.layers:
            with tarfile.open(fileobj=whole.extractfile(layer)) as members:
                found.append({one.name: f"{one.uid} {one.linkname or one.size}" for one in members if not one.isdir()})
    return saved, found


@pytest.fixture
def builder(real_parts: tuple[real.Engine, real.Registry], build: Build, bundle: pathlib.Path) -> Any:
    engine, _ = real_parts

    def run(image: str, tag: str, *options: str) -> Ran:
        command = [*SHIM, "builder", image, "--tag", tag, "--bundle", str(bundle), *options]
        return build.call(*command, DOCKER_HOST=engine.url)

    return run


@pytest.mark.parametrize("kind", ["a lifecycle image", "a builder"])
def test_the_layer_is_whole_and_deriving_again_gives_the_same(
    real_parts: tuple[real.Engine, real.Registry], builder: Any, tmp_path: pathlib.Path, kind: str
) -> None:
    engine, registry = real_parts
    layers = [[member(*ETC)], lifecycle()] + ([] if kind == "a lifecycle image" else [[member("etc/more", b"x")]])
    labels = BUILDER if kind == "a builder" else {}
    name = registry.push(f"derive/{kind.replace(' ', '-')}:1", image(*layers, labels=labels))
    tag = f"{registry.host}/derive/done:{len(layers)}"
    setting = 'ANALYZED_SHIM_REPORT=$HOME ${x} "3" \\'
    builder(name, tag, "--env", setting, "--push").expect(code=0)
    before, below = layers_of(engine, name, tmp_path)
    after, above = layers_of(engine, tag, tmp_path)
    replaced = kind == "a lifecycle image"
    assert above[:-1] == below[: len(below) - replaced]
    top = above[-1]
    assert {name for name in top if "analyzed-shim.d" not in name} == {
        f"cnb/lifecycle/{name}"
        for name in (*WRAPPED, *(f"{phase}.real" for phase in WRAPPED), "detector", "lifecycle", "launcher")
    }
    assert {text.partition(" ")[0] for text in top.values()} == {"7"}  # everything has its directory's owner
    assert top["cnb/lifecycle/restorer.real"] == "7 lifecycle"
    old, new = dict(before.config["config"]), dict(after.config["config"])
    assert new.pop("Env") == [*old.pop("Env"), setting]
    assert {key: value for key, value in new.items() if value} == {key: value for key, value in old.items() if value}
    assert len(after.config["history"]) == len(before.config["history"]) + (not replaced)
    builder(tag, f"{tag}-again", "--env", setting).expect(code=0)
    again, layers_again = layers_of(engine, f"{tag}-again", tmp_path)
    assert (layers_again, again.config["rootfs"]) == (above, after.config["rootfs"])
    engine.client.remove_image(tag)
    engine.pull(tag)  # it was pushed


def test_the_architecture_has_to_be_the_bundle_s(
    real_parts: tuple[real.Engine, real.Registry], builder: Any, tmp_path: pathlib.Path
) -> None:
    engine, registry = real_parts
    ours, other = image(lifecycle()), image(lifecycle(OTHER), architecture=OTHER)
    tag = f"{registry.host}/derive/arch:1"
    for name, one in (("single", other), ("index", index((OTHER, other)))):
        full = registry.push(f"derive/other-{name}:1", one)
        failed = builder(full, tag)
        assert failed.code != 0
        assert "pass a --bundle made there" in failed.err or f"pass --platform linux/{ARCHITECTURE}" in failed.err, (
            failed.err
        )
        assert OTHER in failed.err or f"can't pull {full} for linux/{ARCHITECTURE}" in failed.err, failed.err
        assert engine.id_of(tag) is None
    lies = registry.push("derive/lies:1", image(lifecycle(OTHER)))
    failed = builder(lies, tag)
    assert (failed.code, f"is a program for {OTHER}" in failed.err, "--bundle" in failed.err) == (64, True, True)
    both = registry.push("derive/both:1", index((OTHER, other), (ARCHITECTURE, ours)))
    builder(both, tag).expect(code=0)
    saved, _ = layers_of(engine, tag, tmp_path)
    assert saved.platform == f"linux/{ARCHITECTURE}"
    engine.client.remove_image(both)
    engine.pull(both, f"linux/{OTHER}")
    about = engine.client.inspect_image(both)  # type: ignore[no-untyped-call]
    ended = builder(both, f"{tag}-other")
    if about["Os"]:
        assert ended.code != 0
        assert f"is for linux/{OTHER}" in ended.err, ended.err
        assert f"pass --platform linux/{ARCHITECTURE}" in ended.err
    else:  # Docker 29's containerd store, which has nothing for its own platform: as if the image weren't there
        ended.expect(code=0)
        assert f"pulling {both} for linux/{ARCHITECTURE}" in ended.err
    failed = builder(both, f"{tag}-other", "--platform", f"linux/{OTHER}")
    assert (failed.code != 0, f"not for linux/{OTHER}" in failed.err) == (True, True)
    builder(both, f"{tag}-other", "--platform", f"linux/{ARCHITECTURE}").expect(code=0)
    saved, _ = layers_of(engine, f"{tag}-other", tmp_path)
    assert saved.platform == f"linux/{ARCHITECTURE}"


def test_a_push_that_is_refused_is_an_error(real_parts: tuple[real.Engine, real.Registry], builder: Any) -> None:
    _, registry = real_parts
    name = registry.push("derive/refused:1", image(lifecycle()))
    ended = builder(name, "127.0.0.1:1/refused:1", "--push")
    assert ended.code != 0
    assert "pushing 127.0.0.1:1/refused:1" in ended.err


# Without an engine.


def saved(directory: pathlib.Path, *layers: list[Any], labels: dict[str, str] | None = None) -> archive.Saved:
    path = directory / "image.tar"
    rootfs = {"diff_ids": ["x"] * len(layers)}
    config = {"os": "linux", "architecture": ARCHITECTURE, "rootfs": rootfs, "config": {"Labels": labels}}
    manifest = [{"Config": "c.json", "RepoTags": None, "Layers": [f"{at}/layer.tar" for at in range(len(layers))]}]
    files = {f"{at}/layer.tar": packed(layer) for at, layer in enumerate(layers)}
    files |= {"c.json": json.dumps(config).encode(), "manifest.json": json.dumps(manifest).encode()}
    path.write_bytes(packed([member(name, content) for name, content in files.items()]))
    return archive.read(path)


def test_layers_lie_over_each_other(tmp_path: pathlib.Path) -> None:
    below = [
        *lifecycle(),
        member("cnb/lifecycle/old", b"x"),
        member("cnb/lifecycle/d/x", b"x"),
        member("cnb/other", b""),
    ]
    above = [
        member("./cnb/lifecycle/.wh.old"),
        member("cnb/lifecycle/d/.wh..wh..opq"),
        member("/cnb/lifecycle/d/y", b"y"),
        member("cnb/lifecycle/same", kind=tarfile.LNKTYPE, link="cnb/lifecycle/d/y"),
    ]
    found = archive.tree(saved(tmp_path, below, above), "cnb/lifecycle")
    assert sorted(found) == sorted(
        ["", "d/y", "same", "lifecycle", "launcher", "detector", *WRAPPED],
    )
    assert found["same"] is found["d/y"]
    emptied = archive.tree(saved(tmp_path, below, [member(".wh.cnb")], lifecycle()), "cnb/lifecycle")
    assert "old" not in emptied
    assert "lifecycle" in emptied


@pytest.mark.parametrize(
    "bad",
    [
        member("cnb/lifecycle/../../etc/passwd", b"x"),
        member("../etc/passwd", b"x"),
        member("cnb/lifecycle/link", kind=tarfile.LNKTYPE, link="etc/passwd"),
        member("cnb/lifecycle/link", kind=tarfile.LNKTYPE, link="../../etc/passwd"),
        member("cnb/lifecycle/link", kind=tarfile.LNKTYPE, link="/etc/shadow"),
        member("cnb/lifecycle/null", kind=tarfile.CHRTYPE),
        member("cnb/lifecycle/disk", kind=tarfile.BLKTYPE),
        member("cnb/lifecycle/pipe", kind=tarfile.FIFOTYPE),
        member("cnb/lifecycle", link="/etc"),
        member("cnb", link="/etc"),
    ],
    ids=lambda one: repr((one[0].name, one[0].linkname, one[0].type)),
)
def test_what_leads_elsewhere_is_refused(tmp_path: pathlib.Path, bad: Any) -> None:
    with pytest.raises(archive.BadImage):
        archive.tree(saved(tmp_path, [member(*ETC), *lifecycle(), bad]), "cnb/lifecycle")


def repacked(one: archive.Saved, change: Any) -> archive.Saved:
    """An image's archive with its members changed."""
    with tarfile.open(one.path) as old:
        members = {part.name: (part, (old.extractfile(part) or io.BytesIO()).read()) for part in old}
    one.path.write_bytes(packed([member(*pair) if isinstance(pair[0], str) else pair for pair in change(members)]))
    return archive.read(one.path)


def test_a_layer_may_be_compressed_or_a_link_to_another(tmp_path: pathlib.Path) -> None:
    plain = saved(tmp_path, lifecycle(), lifecycle())

    def change(members: dict[str, Any]) -> list[Any]:
        first = members.pop("0/layer.tar")[1]
        del members["1/layer.tar"]
        links = [member("0/layer.tar", gzip.compress(first)), member("1/layer.tar", link="../0/layer.tar")]
        return [*members.values(), *links]

    found = archive.tree(repacked(plain, change), "cnb/lifecycle")
    assert sorted(found) == sorted(["", "lifecycle", "launcher", "detector", *WRAPPED])
    out = io.BytesIO()
    archive.write(archive.read(plain.path), out, b"layer", replace=False, tag="t:1", environment={})
    with tarfile.open(fileobj=io.BytesIO(out.getvalue())) as written:
        assert [one.size > 0 for one in written] == [True] * 5

    def linked(members: dict[str, Any]) -> list[Any]:
        del members["1/layer.tar"]
        return [*members.values(), member("1/layer.tar", kind=tarfile.LNKTYPE, link="0/layer.tar")]

    assert archive.tree(repacked(saved(tmp_path, lifecycle(), lifecycle()), linked), "cnb/lifecycle")

    def lost(members: dict[str, Any]) -> list[Any]:
        del members["1/layer.tar"]
        return [*members.values(), member("1/layer.tar", link="1/layer.tar")]

    with pytest.raises(archive.BadImage, match="not a whole image"):
        archive.tree(repacked(saved(tmp_path, lifecycle(), lifecycle()), lost), "cnb/lifecycle")


def test_a_bundle_of_an_old_machine_is_not_packed_and_why_is_said(bundle: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """Its loader can't be told the program's name."""
    assert pack.hindrance(bundle) == ""
    old = pathlib.Path(shutil.copytree(bundle, tmp_path / "old"))
    loader = old / "lib" / "ld.so"
    loader.write_bytes(loader.read_bytes().replace(b"--argv0", b"--argvX"))
    assert pack.hindrance(old) == "a glibc before 2.33 is in it: make it on a newer machine, and pass --bundle"


def test_a_layer_that_can_t_be_unpacked_and_one_that_is_lost_are_named(tmp_path: pathlib.Path) -> None:
    def zstd(members: dict[str, Any]) -> list[Any]:
        members["0/layer.tar"] = member("0/layer.tar", b"\x28\xb5\x2f\xfd" + bytes(100))
        return [*members.values()]

    with pytest.raises(archive.BadImage, match="compressed with zstd"):
        archive.tree(repacked(saved(tmp_path, lifecycle()), zstd), "cnb/lifecycle")

    def lost(members: dict[str, Any]) -> list[Any]:
        del members["0/layer.tar"]
        return [*members.values()]

    with pytest.raises(archive.BadImage, match=f"the image for linux/{ARCHITECTURE} lacks layers"):
        repacked(saved(tmp_path, lifecycle()), lost)
    with pytest.raises(archive.BadImage, match=f"is for linux/{ARCHITECTURE}, not for linux/{OTHER}"):
        archive.read(saved(tmp_path, lifecycle()).path, f"linux/{OTHER}")


@pytest.mark.parametrize("part", [0, 1, 600, 5000])
def test_a_truncated_archive_is_refused(tmp_path: pathlib.Path, part: int) -> None:
    whole = saved(tmp_path, lifecycle())
    os.truncate(whole.path, part)
    with pytest.raises(ShimError, match="not a whole image"):
        archive.tree(archive.read(whole.path), "cnb/lifecycle")


def test_a_layer_with_more_than_the_lifecycle_stays_below(tmp_path: pathlib.Path) -> None:
    for more in (member("cnb/lifecycle/x"), member("cnb/lifecycle/.wh.x")):
        assert archive.only_has(saved(tmp_path, [*lifecycle(), more]), "cnb/lifecycle")
    for more in (member("cnb/order.toml", b""), member("cnb/.wh.order.toml"), member(".wh.etc")):
        assert not archive.only_has(saved(tmp_path, [*lifecycle(), more]), "cnb/lifecycle")


@pytest.mark.parametrize(
    ("labels", "packs"),
    [
        pytest.param({}, True, id="no-labels"),
        pytest.param({METADATA: '{"lifecycle": {"version": "0.20.5"}}'}, True, id="a-lifecycle-image"),
        pytest.param(BUILDER, False, id="a-builder"),
        pytest.param({METADATA: "{"}, False, id="bad-labels"),
    ],
)
def test_what_pack_packs_in_every_build_is_packed(
    tmp_path: pathlib.Path, bundle: pathlib.Path, labels: dict[str, str], packs: bool
) -> None:
    layer, _ = derive.assembled(saved(tmp_path, [member(*ETC)], lifecycle(), labels=labels), str(bundle), "x", print)
    with tarfile.open(fileobj=io.BytesIO(layer)) as read:
        at = f"cnb/lifecycle/{install.NAME}/"
        has = {one.name.removeprefix(at): one.size for one in read if one.name.startswith(at)}
    assert [name in has for name in ("lib/packed", "lib/python", "lib/libc.so.6")] == [packs, not packs, not packs]
    assert "lib/libz.so.1" in has  # few builds load it
    assert (sum(has.values()) < 10e6) == packs


def test_an_older_bundle_and_shims_are_gone(tmp_path: pathlib.Path, bundle: pathlib.Path) -> None:
    script = install.script(f"/cnb/lifecycle/{install.NAME}").encode()
    older = [
        *lifecycle(),
        *(member(f"cnb/lifecycle/{phase}.real", link="lifecycle") for phase in WRAPPED),
        *(member(f"cnb/lifecycle/{phase}", script) for phase in WRAPPED),
        member(f"cnb/lifecycle/{install.NAME}/lib/old.so", b"x"),
    ]
    nodes = derive.with_shim(archive.tree(saved(tmp_path, older), "cnb/lifecycle"), str(bundle), "x")
    assert f"{install.NAME}/lib/old.so" not in nodes
    assert nodes["restorer.real"].header.linkname == "lifecycle"
    without = [one for one in older if not one[0].name.endswith("restorer.real")]
    with pytest.raises(ShimError, match=r"restorer\.real beside it was not found"):
        derive.with_shim(archive.tree(saved(tmp_path, without), "cnb/lifecycle"), str(bundle), "x")


@pytest.mark.parametrize("hidden", [False, True])
def test_what_layers_below_have_is_hidden(tmp_path: pathlib.Path, bundle: pathlib.Path, hidden: bool) -> None:
    """Also if the layer that hid it is replaced; and done again it is the same."""
    old = member(f"cnb/lifecycle/{install.NAME}/lib/old.so", b"x")
    gone = [member(f"cnb/lifecycle/{install.NAME}/lib/.wh.old.so")] if hidden else []
    first = saved(tmp_path, [*lifecycle(), old], [*lifecycle(), *gone])
    layer, replaced = derive.assembled(first, str(bundle), "x", print)
    assert replaced
    with tarfile.open(fileobj=io.BytesIO(layer)) as read:
        assert f"cnb/lifecycle/{install.NAME}/lib/.wh.old.so" in read.getnames()
        members = [(one, content.read() if (content := read.extractfile(one)) else b"") for one in read]
    again = saved(tmp_path, [*lifecycle(), old], members)
    assert f"{install.NAME}/lib/old.so" not in archive.tree(again, "cnb/lifecycle")
    assert derive.assembled(again, str(bundle), "x", print) == (layer, True)


def test_install_refuses_phases_of_another_architecture(
    tmp_path: pathlib.Path, bundle: pathlib.Path, build: Build
) -> None:
    for phase in WRAPPED:
        (tmp_path / phase).write_bytes(program(OTHER))
    ended = build.call(*SHIM, "install", str(tmp_path), "--bundle", str(bundle))
    assert (ended.code, f"is a program for {OTHER}" in ended.err) == (64, True)
    assert not (tmp_path / install.NAME).exists()


@needs_root
def test_install_on_a_full_disk_leaves_nothing(tmp_path: pathlib.Path, bundle: pathlib.Path, build: Build) -> None:
    place, kept = tmp_path / "cnb", tmp_path / "kept"
    place.mkdir()
    kept.mkdir()
    for phase in WRAPPED:
        (kept / phase).write_bytes(program(ARCHITECTURE))
    ended = in_mount_namespace(
        f"mount -t tmpfs -o size=4m none {place}; cp -a {kept}/. {place};"
        f'code=0; "$@" || code=$?; ls -A {place}; exit $code',
        *(*SHIM, "install", str(place), "--bundle", str(bundle)),
        build=build,
    )
    assert (ended.returncode, sorted(ended.stdout.split())) == (64, sorted(WRAPPED)), ended.stderr
    assert f"{place} can't be changed: [Errno 28] No space left on device: " in ended.stderr
    assert len(ended.stderr.splitlines()) == 1
    assert len(ended.stderr) < 1000


@needs_root
@pytest.mark.engines("docker")
@pytest.mark.parametrize("room", ["16k", "4m"], ids=["for half of the image", "for the image only"])
def test_a_full_temporary_directory_is_named(
    real_parts: tuple[real.Engine, real.Registry], build: Build, bundle: pathlib.Path, tmp_path: pathlib.Path, room: str
) -> None:
    engine, registry = real_parts
    name = registry.push("derive/large:1", image([member(*ETC)], lifecycle()))
    engine.pull(name)
    derives = ("builder", name, "--tag", f"{registry.host}/derive/none:1", "--bundle", str(bundle))
    for command in (derives, *([("check", "--image", name)] if room == "16k" else [])):
        ended = in_mount_namespace(
            f"mount -t tmpfs -o size={room} none {tmp_path}",
            *(*SHIM, *command),
            build=build,
            TMPDIR=str(tmp_path),
            DOCKER_HOST=engine.url,
        )
        said = ended.stderr.splitlines()[-1]
        assert said.startswith(f"analyzed-shim: ERROR: {tmp_path}/analyzed-shim-"), ended.stderr
        assert said.endswith("No space left on device (set TMPDIR to a directory that has room for the image twice)")
        assert (ended.returncode, "Traceback" in ended.stderr) == (1, False)


def test_stripping_takes_what_is_not_loaded_only(bundle: pathlib.Path) -> None:
    for path in (bundle / "lib").glob("*.so*"):
        found = elf.parse(path.read_bytes())
        assert found is not None
        assert found.architecture == ARCHITECTURE
        if path.name != "ld.so":
            assert path.stat().st_size <= found.end
    assert (
        subprocess.run([bundle / "bin" / "python3", "-IS", "-c", "import ssl, zlib"], env={}, check=False).returncode
        == 0
    )
