"""analyzed.toml: read, edit one value, verify, write.

What it holds: https://github.com/buildpacks/spec/blob/main/platform.md#analyzedtoml-toml
"""

from __future__ import annotations

import os
from itertools import islice

from shim.errors import BrokenFile, EditRefused
from shim.layers import files, replacing, toml
from shim.layers.rights import AS_IT_IS
from shim.policy.facts import kind_of
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shim.layers.rights import Rights
    from shim.policy.facts import Kind

_MOST = 4096
"""Characters that `tomlkit` edits: of the one table, or of a whole file in which that can't be cut out."""
_PLACES = 10
"""Places that are looked at: a real file has one, and in a string there may be any number."""


class Analyzed(Record):
    """An analyzed.toml as it was read: a snapshot, and what this is about of it."""

    path: str
    data: bytes
    about: os.stat_result
    values: Mapping[str, object]
    """All that it holds."""
    run_image: bool
    """There is a `[run-image]`."""
    reference: str
    image: str
    """The run image's name; empty if no extension switched it."""
    target_os: str
    marker: bool | None
    """`[run-image] daemon`, which is no key of the lifecycle's."""
    previous: Kind
    """What the previous image's reference is: it tells a daemon build from a registry build."""

    @property
    def kind(self) -> Kind:
        """What `run-image.reference` is."""
        return kind_of(self.reference)


def read(path: str, rights: Rights = AS_IT_IS, known: Analyzed | None = None) -> Analyzed:
    """Read an analyzed.toml.

    Args:
        path: where it is.
        rights: with whose rights.
        known: the same file as it was read before, which is not parsed again if it is the same still.

    Raises:
        MissingFile: it was not found.
        BrokenFile: it can't be read, isn't TOML, or a value is of the wrong type. The lifecycle reads none of it then.

    """
    data, about = files.read(path, rights=rights)
    if known is not None and data == known.data:
        return known.but(about=about)
    return parse(path, data, about)


def parse(path: str, data: bytes, about: os.stat_result) -> Analyzed:
    """Return the snapshot of an analyzed.toml that was read.

    Raises:
        BrokenFile: as by `read`.

    """
    values = toml.parse(path, toml.text_of(path, data))
    run_image = _table(path, values, "run-image")
    marker = run_image.get("daemon")
    if not isinstance(run_image.get("extend"), bool | None):
        raise _wrong(path, run_image, "extend", "true or false")
    return Analyzed(
        path=path,
        data=data,
        about=about,
        values=values,
        run_image="run-image" in values,
        reference=_string(path, run_image, "reference"),
        image=_string(path, run_image, "image"),
        target_os=_string(path, _table(path, run_image, "target"), "os"),
        marker=marker if isinstance(marker, bool) else None,
        previous=kind_of(_string(path, _table(path, values, "image"), "reference")),
    )


def write_reference(snapshot: Analyzed, reference: str, rights: Rights = AS_IT_IS) -> None:
    """Make `run-image.reference` another value and leave every other byte, the owner and the mode.

    The new file takes the old one's place in one step. If that can't be, as for a file that is bind-mounted by itself,
    the same file is written, by one call that keeps it whole.

    Args:
        snapshot: the file as it was read.
        reference: the new value.
        rights: with whose rights.

    Raises:
        EditRefused: the file changed meanwhile, can't be edited or can't be written. It is as it was.

    """
    path, about = snapshot.path, snapshot.about
    data = edit(snapshot, reference)
    if data == snapshot.data:
        return
    current, now = files.read(path, rights=rights)
    if current == data:  # another shim beside this one did it
        return
    if current != snapshot.data:
        raise EditRefused(f"{path} was changed by another process meanwhile", "let one build at a time use it")
    try:
        replacing.replace(path, data, about.st_mode & 0o7777, (now.st_uid, now.st_gid), rights)
    except OSError as problem:
        try:
            replacing.overwrite(path, current, data, rights)
        except OSError:
            raise EditRefused(
                f"{path} can't be written: {problem.strerror}", "check its owner and mode, and the disk's space"
            ) from None


def edit(snapshot: Analyzed, reference: str) -> bytes:
    """Return the content with another `run-image.reference` and every other byte the same.

    The value is replaced as it stands if the lifecycle wrote it; else `tomlkit` edits the one table, cut out, or the
    whole file. Any of this counts only after a comparison has found that exactly this value's bytes changed, and
    `tomllib`, reading the whole, that nothing but the value did.

    Raises:
        EditRefused: no such edit can be made.

    """
    path, data = snapshot.path, snapshot.data
    text = toml.text_of(path, data)
    table = _table(path, snapshot.values, "run-image")
    old = _string(path, table, "reference") if "reference" in table else None
    if old == reference:
        return data
    wanted = {**snapshot.values, "run-image": {**table, "reference": reference}}
    for start, end in places(text):
        for piece in _edited(text[start:end], old, reference):
            if not only_value_differs(text[start:end], piece, old, reference):
                continue
            if _parsed(text[:start] + piece + text[end:]) == wanted:
                first = len(text[:start].encode()) + (len(toml.BOM) if data.startswith(toml.BOM) else 0)
                last = first + len(text[start:end].encode())
                whole = memoryview(data)  # of ten megabytes every copy counts
                return b"".join((whole[:first], piece.encode(), whole[last:]))
    raise EditRefused(f"run-image.reference of {path} can't be changed by itself", "write it as the lifecycle does")


def _edited(piece: str, old: str | None, reference: str) -> Iterator[str]:
    """Yield what a piece of the file may become: proposals, to be verified."""
    yield piece.replace(f'reference = "{old}"', f'reference = "{reference}"', 1)
    if len(piece) > _MOST:
        return
    import tomlkit  # four bare interpreter starts, and only for what the lifecycle didn't write
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(piece)
        document["run-image"]["reference"] = reference
        yield document.as_string()
    except (TOMLKitError, KeyError, TypeError, ValueError, RecursionError):
        pass


def places(text: str) -> Iterator[tuple[int, int]]:
    """Yield where the `[run-image]` table may stand, then the whole text: proposals, to be verified."""
    import re  # which reading the file has imported

    for header in islice(re.finditer(r"^[ \t]*\[run-image\]", text, re.MULTILINE), _PLACES):
        following = re.compile(r"^[ \t]*\[", re.MULTILINE).search(text, header.end())
        yield header.start(), following.start() if following else len(text)
    yield 0, len(text)


def only_value_differs(old: str, new: str, old_value: str | None, value: str) -> bool:
    """Return whether the new text is the old one with another string literal, or with one line more."""
    literal = f'"{value}"'
    first = next((at for at, pair in enumerate(zip(old, new, strict=False)) if pair[0] != pair[1]), len(old))
    # The first difference is in the value, or behind it if both go on alike; of a line more, it may be before it.
    for at in (new.rfind(literal, None, first + len(literal)), new.find(literal, first)):
        if not new.startswith(literal, at):  # it isn't there
            continue
        before, after = new[:at], new[at + len(literal) :]
        if old_value is None:
            same = before[: before.rfind("\n") + 1] + after.partition("\n")[2] in (old, f"{old}\n")
        else:
            gone = old[len(before) : len(old) - len(after)]
            same = before + gone + after == old and _parsed(f"value = {gone}") == {"value": old_value}
        if same:
            return True
    return False


def _parsed(text: str) -> Mapping[str, object] | None:
    try:
        return toml.parse("", text)
    except BrokenFile:
        return None


def _table(path: str, values: Mapping[str, object], key: str) -> dict[str, object]:
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise BrokenFile(f"{path}: {key} is not a table", "write it as the lifecycle does")
    return table


def _string(path: str, values: Mapping[str, object], key: str) -> str:
    value = values.get(key, "")
    if not isinstance(value, str):
        raise _wrong(path, values, key, "a string")
    return value


def _wrong(path: str, values: Mapping[str, object], key: str, kind: str) -> BrokenFile:
    return BrokenFile(f"{path}: {key} is not {kind} but {str(values[key])[:80]}", "write it as the lifecycle does")
