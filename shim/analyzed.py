"""analyzed.toml: read, edit one value, verify, write.

What it holds: https://github.com/buildpacks/spec/blob/platform/v0.11/platform.md#analyzedtoml-toml
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any, NamedTuple

from shim import files, toml
from shim.errors import FileProblem, WriteRefused

_MOST = 4096  # characters of a table that `tomlkit` edits; a real one has 300
_PLACES = 10  # where the table may begin; a real file has one, and in a string there may be any number


class Analyzed(NamedTuple):
    """An analyzed.toml as it was read."""

    path: str
    data: bytes
    about: os.stat_result
    values: dict[str, object]
    """All that it holds."""
    reference: str
    image: str
    """The run image's name; empty if no extension switched it."""
    target_os: str

    @property
    def name(self) -> str:
        """What the daemon is asked for: `run-image.image`, else the reference."""
        return self.image or self.reference


def read(path: str) -> Analyzed:
    """Read an analyzed.toml.

    Raises FileProblem: it was not found, can't be read, isn't TOML, or has no `[run-image]` that the lifecycle could
    read.
    """
    data, about = files.read(path)
    values = toml.parse(path, data)
    if "run-image" not in values:
        raise FileProblem(f"{path} has no [run-image]", "see what the analyzer said")
    run_image = _get(path, values, "run-image", dict)
    target_os = _get(path, _get(path, run_image, "target", dict), "os", str)
    reference, image = (_get(path, run_image, key, str) for key in ("reference", "image"))
    return Analyzed(path, data, about, values, reference, image, target_os)


def write_reference(found: Analyzed, reference: str) -> Analyzed:
    """Make `run-image.reference` another value, and return the file as it is then.

    Every other byte stays, and so do owner, mode and attributes.

    Raises WriteRefused: the file changed meanwhile, can't be edited or can't be written. It is as it was.
    """
    if reference == found.reference:
        return found
    data, values = edit(found, reference)
    about = files.replace(found.path, data, found.about)
    return found._replace(data=data, about=about, values=values, reference=reference)


def edit(found: Analyzed, reference: str) -> tuple[bytes, dict[str, object]]:
    """Return content and values with another `run-image.reference` and every other byte the same.

    `tomlkit` edits the one table, cut out, as it takes seconds for a megabyte. That counts only if the result, read
    whole by `tomllib`, has another value there and is otherwise the same, and if one line of it differs.

    Raises WriteRefused: no such edit can be made.
    """
    import tomlkit  # half of what `docker` costs by itself, and only for what is written
    from tomlkit.exceptions import TOMLKitError

    text = found.data.decode()
    run_image = _get(found.path, found.values, "run-image", dict)
    wanted = {**found.values, "run-image": {**run_image, "reference": reference}}
    for start, end in _places(text):
        try:
            document = tomlkit.parse(text[start:end])
            document["run-image"]["reference"] = reference
            piece = document.as_string()
            result = (text[:start] + piece + text[end:]).encode()
            if _one_line_differs(text[start:end], piece) and toml.parse(found.path, result) == wanted:
                return result, wanted
        except (TOMLKitError, FileProblem, KeyError, TypeError, ValueError, RecursionError):
            continue
    raise WriteRefused(
        f"run-image.reference of {found.path} can't be changed by itself", "write the file as the lifecycle does"
    )


def _places(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the `[run-image]` table may begin and end: proposals, to be verified."""
    for header in islice(re.finditer(r"^[ \t]*\[run-image\]", text, re.MULTILINE), _PLACES):
        following = re.compile(r"^[ \t]*\[", re.MULTILINE).search(text, header.end())
        end = following.start() if following else len(text)
        if end - header.start() <= _MOST:
            yield header.start(), end


def _one_line_differs(old: str, new: str) -> bool:
    old_lines, new_lines = old.split("\n"), new.split("\n")
    differing = [pair for pair in zip(old_lines, new_lines, strict=False) if pair[0] != pair[1]]
    return len(old_lines) == len(new_lines) and len(differing) == 1


def _get(path: str, values: Mapping[str, Any], key: str, kind: type) -> Any:
    value = values.get(key, kind())
    if not isinstance(value, kind):
        what = "a table" if kind is dict else "a string"
        raise FileProblem(f"{path}: {key} is not {what}", "rerun the preceding phase")
    return value
