"""What an ELF file's header says, and taking away what its loader doesn't read. See elf(5)."""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from shim.record import Record

if TYPE_CHECKING:
    import pathlib

ARCHITECTURES = {3: "386", 20: "ppc", 21: "ppc64le", 22: "s390x", 40: "arm", 62: "amd64", 183: "arm64", 243: "riscv64"}
"""`e_machine`, and what an image's configuration calls it (GOARCH)."""
_HEADER, _PROGRAM_HEADER = 64, 56
"""Bytes of a 64-bit file's header, and of each of its program headers."""
_LOAD, _INTERPRETER = 1, 3


class Elf(Record):
    """A program or shared library."""

    architecture: str
    """As an image's configuration has it, such as `amd64`; `machine N` if it is none of those known here."""
    interpreter: str | None = None
    """Its loader (`PT_INTERP`); None: it is linked statically, a library, or not of 64 bits."""
    end: int = 0
    """Bytes up to the end of what is loaded; 0: not known."""


def parse(content: bytes) -> Elf | None:
    """Read a file's header, of which `content` is the beginning or all; None: it is no ELF file."""
    if len(content) < 20 or content[:4] != b"\x7fELF" or content[5] not in (1, 2):
        return None
    order = "<" if content[5] == 1 else ">"
    machine = struct.unpack_from(f"{order}H", content, 18)[0]
    architecture = ARCHITECTURES.get(machine, f"machine {machine}")
    if content[4] != 2 or len(content) < _HEADER or order == ">":
        return Elf(architecture=architecture)
    first, size, count = struct.unpack_from("<Q14xHH", content, 32)[0], *struct.unpack_from("<HH", content, 54)
    if size < _PROGRAM_HEADER:
        return Elf(architecture=architecture)
    interpreter, end = None, first + size * count
    for header in range(first, first + size * count, size):
        if header + 40 > len(content):
            break
        kind, offset, length = (
            *struct.unpack_from("<I", content, header),
            *struct.unpack_from("<Q16xQ", content, header + 8),
        )
        if kind == _INTERPRETER:
            interpreter = content[offset : offset + length].split(b"\0")[0].decode(errors="replace")
        if kind == _LOAD:
            end = max(end, offset + length)
    return Elf(architecture=architecture, interpreter=interpreter, end=end)


def read(path: pathlib.Path) -> Elf:
    """Read a file that has to be an ELF file.

    Raises:
        OSError: it can't be read, or isn't one.

    """
    found = parse(path.read_bytes())
    if found is None:
        raise OSError(f"{path} is not an ELF file")
    return found


def strip(path: pathlib.Path) -> None:
    """Take away symbols, debug information and section headers, which are behind what is loaded."""
    content = bytearray(path.read_bytes())
    found = parse(bytes(content))
    if found is None or not 0 < found.end < len(content):
        return
    struct.pack_into("<Q", content, 40, 0)  # e_shoff
    struct.pack_into("<HH", content, 60, 0, 0)  # e_shnum, e_shstrndx
    path.write_bytes(content[: found.end])
