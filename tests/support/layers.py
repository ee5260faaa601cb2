"""A layers directory with what a detector leaves in it."""

from __future__ import annotations

import os
import pathlib
import tomllib

GROUP = '[[group]]\n  id = "bp/a"\n  version = "0.1"\n  api = "0.9"\n'
EXTENSION = '\n[[group-extensions]]\n  id = "ext/a"\n  version = "0.1"\n  api = "0.9"\n'
ID = "c5eae3d06f9f2ad6587e814ebdc0e956538fb51d00df79916c59824fff32d0a6"


def analyzed_toml(reference: str, image: str | None = None, previous: str = "", extra: str = "") -> str:
    """Return an analyzed.toml as the detector leaves it."""
    name = f'  image = "{image}"\n' if image else ""
    return (
        f'[image]\n  reference = "{previous}"\n\n[metadata]\n  [metadata.config]\n    sha = ""\n'
        '  [metadata.launcher]\n    sha = ""\n  [metadata.process-types]\n    sha = ""\n'
        '  [metadata.run-image]\n    top-layer = ""\n    reference = ""\n\n'
        f'[run-image]\n  reference = "{reference}"\n{name}{extra}'
    )


class Layers:
    """A layers directory."""

    def __init__(self, path: pathlib.Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.toml = path / "analyzed.toml"
        self.group = path / "group.toml"
        self.note = path / "analyzed-shim.toml"

    def write(
        self, reference: str, image: str | None = None, previous: str = "", extra: str = "", extensions: bool = True
    ) -> None:
        self.toml.write_text(analyzed_toml(reference, image, previous, extra))
        self.group.write_text(GROUP + (EXTENSION if extensions else ""))

    @property
    def reference(self) -> str:
        value = tomllib.loads(self.toml.read_text())["run-image"]["reference"]
        assert isinstance(value, str)
        return value

    def give(self, uid: int) -> None:
        """Give the directory and its files to a user and their group."""
        for path in (self.path, *self.path.iterdir()):
            os.lchown(path, uid, uid)

    def identity(self) -> tuple[int, int, int, int, int, int]:
        """Return what changes with any write, replacement or change of owner or mode of analyzed.toml."""
        about = self.toml.stat()
        return about.st_ino, about.st_mtime_ns, about.st_size, about.st_mode, about.st_uid, about.st_gid

    def stray(self) -> set[str]:
        """Return what lies about beside the files of the lifecycle and the note."""
        known = {"analyzed.toml", "group.toml", "analyzed-shim.toml"}
        return {entry.name for entry in self.path.iterdir()} - known
