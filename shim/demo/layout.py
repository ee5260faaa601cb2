"""Where the stand-in lifecycle is put, as `/cnb/lifecycle` is laid out: one program, and a link a phase."""

from __future__ import annotations

import pathlib
import sys

from shim.demo import lifecycle


def lay_out(directory: pathlib.Path) -> pathlib.Path:
    directory.mkdir(parents=True, exist_ok=True)
    text = pathlib.Path(lifecycle.__file__).read_text().partition("\n")[2]
    (directory / "lifecycle").write_text(f"#!{sys.executable}\n{text}")
    (directory / "lifecycle").chmod(0o755)
    for phase in lifecycle.PHASES:
        (directory / phase).symlink_to("lifecycle")
    return directory
