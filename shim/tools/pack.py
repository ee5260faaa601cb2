"""The part of a bundle that every start loads, packed, for an image whose layers pack packs again in every build.

`bin/python3` unpacks it into memory (packaging/start.c). That takes 8 ms a start, and saves pack some 0.2 s a build:
docs/explanation/bundle.md. Where nothing packs the layer, as in a builder image, the files lie there as they are.
"""

from __future__ import annotations

import importlib.util
import re
import struct
from typing import TYPE_CHECKING

from shim.tools import inventory

if TYPE_CHECKING:
    import pathlib
    from collections.abc import Mapping

PACKED = "lib/packed"
_INTERPRETER, _LOADER = "lib/python", "lib/ld.so"
_LEAST = 1 << 18
"""Bytes of a library that is worth it; the interpreter always loads those that are as large."""
_BLOCK = 1 << 18
"""Bytes of a file that are packed by themselves; packaging/start.c has as many."""
_SIZE = struct.Struct("<I")


def hindrance(bundle: pathlib.Path) -> str:
    """Return why a bundle's parts can't be packed, or nothing if they can.

    A loader must be told the program's name: glibc's has `--argv0` from 2.33 on (and `--preload` from 2.30).

    Raises:
        OSError: the bundle can't be read.

    """
    if b"--argv0" not in (bundle / _LOADER).read_bytes():
        return "a glibc before 2.33 is in it: make it on a newer machine, and pass --bundle"
    if importlib.util.find_spec("lz4") is None:
        return "lz4 packs it: analyzed-shim[bundle], with Python up to 3.14"
    return ""


def packed(files: Mapping[str, bytes]) -> dict[str, bytes]:
    """Return a bundle's files with the interpreter and its large libraries in one, and its bill of materials to match.

    Args:
        files: the content of each, by its path in the bundle.

    """
    large = [name for name in files if re.fullmatch("lib/lib[^/]*", name) and len(files[name]) > _LEAST]
    kept = {name: files[name] for name in files if name not in (_INTERPRETER, *large)}
    kept[PACKED] = b"".join(blocks(files[name]) for name in (_INTERPRETER, *sorted(large)))
    kept[inventory.SBOM] = inventory.relisted(kept)
    return kept


def blocks(content: bytes) -> bytes:
    """Return what `lib/packed` has for a file: its size, and each block of it with the size that it has packed."""
    import lz4.block  # type: ignore[import-untyped]

    out = _SIZE.pack(len(content))
    for at in range(0, len(content), _BLOCK):
        part = content[at : at + _BLOCK]
        block = lz4.block.compress(part, mode="high_compression", compression=12, store_size=False)
        out += _SIZE.pack(len(block)) + block
    return out
