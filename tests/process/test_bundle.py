"""Making a bundle, the cache it is kept in, and the parts of it that run without it too."""

from __future__ import annotations

import json
import os
import pathlib
import sys

import pytest

import shim as package
from shim.errors import ShimError
from shim.phase.invocation import WRAPPED
from shim.tools import ascii_idna, bundled, inventory
from shim.tools import bundle as bundling
from tests.support.build import SHIM, Build
from tests.support.processes import program


def test_what_a_bundle_says_of_the_commands_it_lacks(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for arguments, code, said in (
        (["--version"], 0, f"analyzed-shim {package.__version__}"),
        (["check", "--json"], 64, "check is not in the bundle"),
        ([], 64, "the other commands are not in the bundle"),
        (["--help"], 64, "the other commands are not in the bundle"),
    ):
        monkeypatch.setattr(sys, "argv", ["analyzed-shim", *arguments])
        assert bundled.main() == code
        out, err = capsys.readouterr()
        assert said in out + err


def test_a_host_s_name_is_encoded_as_it_is() -> None:
    codec = ascii_idna.getregentry()
    assert (codec.encode("xn--dmain-jua.example"), codec.decode(b"h.example")) == (
        (b"xn--dmain-jua.example", 21),
        ("h.example", 9),
    )
    with pytest.raises(UnicodeEncodeError):
        codec.encode("dömain.example")


@pytest.fixture
def place(tmp_path: pathlib.Path) -> pathlib.Path:
    """A lifecycle directory."""
    directory = tmp_path / "cnb"
    directory.mkdir()
    for phase in WRAPPED:
        program(directory / phase, "#!/bin/sh\n")
    return directory


def test_the_cache_is_made_once_and_again_if_it_is_damaged(
    build: Build, place: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    cache = tmp_path / "cache" / "analyzed-shim"
    for makes in (True, False, True):
        ended = build.call(*SHIM, "install", str(place), XDG_CACHE_HOME=str(cache.parent))
        assert (ended.code, "making the bundle" in ended.err) == (0, makes), ended.err
        (kept,) = cache.iterdir()
        assert inventory.is_whole(kept)
        if not makes:
            (kept / "lib" / "ld.so").write_bytes(b"changed")
            assert not inventory.is_whole(kept)
    (kept / "lib" / "more").write_bytes(b"added")
    assert not inventory.is_whole(kept)
    (kept / "lib" / "more").unlink()
    assert inventory.is_whole(kept)
    (kept / "bin" / "python3").chmod(0o644)
    assert not inventory.is_whole(kept)
    (kept / inventory.SBOM).write_text(json.dumps({"components": [{}]}))
    assert not inventory.is_whole(kept)


def test_a_cache_that_is_not_an_absolute_path_is_the_usual_one(build: Build, place: pathlib.Path) -> None:
    build.call(*SHIM, "install", str(place), XDG_CACHE_HOME="cache", HOME=str(place.parent)).expect(code=0)
    assert list((place.parent / ".cache" / "analyzed-shim").iterdir())


def test_a_bundle_is_not_made_over_something(tmp_path: pathlib.Path) -> None:
    with pytest.raises(bundling.CannotBundle, match="exists") as problem:
        bundling.make(tmp_path)
    assert problem.value.tip == "name a directory that doesn't"
    (tmp_path / "file").write_text("")
    with pytest.raises(ShimError, match="can't make"):
        bundling.make(tmp_path / "file" / "bundle")
    assert os.listdir(tmp_path) == ["file"]


def test_two_bundles_of_the_same_parts_are_the_same(tmp_path: pathlib.Path) -> None:
    one, other = bundling.make(tmp_path / "one"), bundling.make(tmp_path / "other")
    assert (one / inventory.SBOM).read_bytes() == (other / inventory.SBOM).read_bytes()
    assert bundling.describe(one).startswith(f"{one}: ")
    listed = json.loads((one / inventory.SBOM).read_bytes())
    parts = {part["name"] for part in listed["components"] if part["type"] == "library"}
    assert parts >= {"analyzed-shim", "CPython", "tomlkit", "libc", "OpenSSL", "zlib"}
    assert parts == {path.name for path in (one / "licenses").iterdir()}
    for path in (one / "licenses").iterdir():
        assert path.stat().st_size > 20
