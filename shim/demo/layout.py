"""Where the stand-in lifecycle is put, as `/cnb/lifecycle` is laid out: one program, and a link a phase."""

from __future__ import annotations

import os
import pathlib
import sys

from shim.demo import lifecycle


def lay_out(directory: pathlib.Path) -> pathlib.Path:
    """Put the stand-in into a directory, to be run by the interpreter that runs now, and return the directory."""
    directory.mkdir(parents=True, exist_ok=True)
    program = directory / "lifecycle"
    _, _, text = pathlib.Path(lifecycle.__file__).read_text().partition("\n")
    program.write_text(f"#!{sys.executable}\n{text}")
    program.chmod(0o755)
    for phase in lifecycle.PHASES:
        os.symlink("lifecycle", directory / phase)
    return directory
