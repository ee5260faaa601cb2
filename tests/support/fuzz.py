"""An edit of a file by itself, and how long it is fuzzed."""

from __future__ import annotations

import os
import pathlib
import tempfile

from shim import analyzed, group

SCALE = float(os.environ.get("FUZZ", "1"))


def edited_as(data: bytes, reference: str) -> bytes:
    """Return what an analyzed.toml holds after `run-image.reference` was written, or leave it as it was."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "analyzed.toml")
        path.write_bytes(data)
        try:
            analyzed.write_reference(analyzed.read(str(path)), reference)
            data = path.read_bytes()
        finally:
            assert (path.read_bytes(), os.listdir(directory)) == (data, ["analyzed.toml"])
    return data


def without_extensions(data: bytes, daemon: bool | None = None) -> bytes:
    """Return the note with a group.toml in it."""
    with tempfile.TemporaryDirectory() as directory:
        path = pathlib.Path(directory, "analyzed-shim.toml")
        if daemon is not None:
            group.leave_note(str(path), daemon)
        group.leave_group(str(path), "group.toml", data)
        return path.read_bytes()
