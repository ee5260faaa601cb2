"""analyzed.toml: read, edit one value, verify, write.

What it holds: https://github.com/buildpacks/spec/blob/main/platform.md#analyzedtoml-toml
"""

from __future__ import annotations

import os

from shim.errors import BrokenFile, EditRefused
from shim.layers import files, plain
from shim.layers.rights import AS_IT_IS
from shim.policy.facts import kind_of
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from shim.layers.rights import Rights
    from shim.policy.facts import Kind


class Analyzed(Record):
    """An analyzed.toml as it was read: a snapshot, and what this is about of it."""

    path: str
    data: bytes
    about: os.stat_result
    run_image: bool
    """There is a `[run-image]`."""
    reference: str
    image: str
    """The run image's name; empty where no extension switched it."""
    extend: bool
    target_os: str
    marker: bool | None
    """`[run-image] daemon`, which is no key of the lifecycle's."""
    previous: Kind
    """What the previous image's reference is: it tells a daemon build from a registry build."""

    @property
    def kind(self) -> Kind:
        """What `run-image.reference` is."""
        return kind_of(self.reference)


def read(path: str, rights: Rights = AS_IT_IS) -> Analyzed:
    """Read an analyzed.toml, with the given rights.

    Raises:
        MissingFile: it isn't there.
        BrokenFile: it can't be read, isn't TOML, or a value is of the wrong type. The lifecycle
            reads none of it then.

    """
    data, about = files.read(path, rights=rights)
    text = files.text_of(path, data)
    tables = _plain_tables(text)
    if tables is not None:
        run_image: Mapping[str, object] | None = tables.get("run-image")
        target: Mapping[str, object] = tables.get("run-image.target", {})
        previous: Mapping[str, object] = tables.get("image", {})
    else:
        document = files.parse_fully(path, text)
        run_image = _table(path, document, "run-image") if "run-image" in document else None
        target = _table(path, run_image or {}, "target")
        previous = _table(path, document, "image")
    values = run_image or {}
    marker = values.get("daemon")
    return Analyzed(
        path=path,
        data=data,
        about=about,
        run_image=run_image is not None,
        reference=_string(path, values, "reference"),
        image=_string(path, values, "image"),
        extend=_boolean(path, values, "extend"),
        target_os=_string(path, target, "os"),
        marker=marker if isinstance(marker, bool) else None,
        previous=kind_of(_string(path, previous, "reference")),
    )


def write_reference(snapshot: Analyzed, reference: str, rights: Rights = AS_IT_IS) -> None:
    """Make `run-image.reference` another value and leave every other byte, the owner and the mode.

    The new file takes the old one's place in one step. Where that can't be, as for a file that is
    bind-mounted by itself, the same file is written, by one call that keeps it whole.

    Args:
        snapshot: the file as it was read.
        reference: the new value.
        rights: whose.

    Raises:
        EditRefused: the file changed meanwhile, can't be edited or can't be written. It is as it was.

    """
    path, about = snapshot.path, snapshot.about
    data = edit(path, snapshot.data, reference)
    if data == snapshot.data:
        return
    current, now = files.read(path, rights=rights)
    if current == data:  # another shim beside this one did it
        return
    if current != snapshot.data:
        raise EditRefused(f"{path} was changed by somebody else meanwhile", "let one build at a time use it")
    try:
        files.replace(path, data, about.st_mode & 0o7777, (now.st_uid, now.st_gid), rights)
    except OSError as problem:
        try:
            files.overwrite(path, current, data, rights)
        except OSError:
            raise EditRefused(
                f"{path} can't be written: {problem.strerror}", "make it writable, and look at the disk's space"
            ) from None


def edit(path: str, data: bytes, reference: str) -> bytes:
    """Return the content with another `run-image.reference` and every other byte the same.

    Where the lifecycle wrote the value it is replaced as it stands; else `tomlkit` edits the one
    table where that can be cut out, or the whole file. Any of this counts only after a comparison
    has found that exactly this value's bytes changed, and a reader that the value is the new one:
    the line reader of the table where the file is plain, else `tomllib` of the whole.

    Args:
        path: the file's name, for the error.
        data: its content.
        reference: the new value.

    Raises:
        EditRefused: no such edit can be made.

    """
    text = files.text_of(path, data)
    tables = _plain_tables(text)
    if tables is not None and "run-image" not in tables:
        tables = None
    values: Mapping[str, object] = files.parse_fully(path, text) if tables is None else tables
    table = _table(path, values, "run-image")
    old = _string(path, table, "reference") if "reference" in table else None
    wanted = {**table, "reference": reference}
    for start, end in places(text):
        for piece in _edited(text[start:end], old, reference):
            if not only_value_differs(text[start:end], piece, old, reference):
                continue
            if tables is not None:  # of lines that stand alone, only this table's can have become others
                same = plain.tables(piece) == {"": {}, "run-image": wanted}
            else:
                same = _parsed(text[:start] + piece + text[end:]) == {**values, "run-image": wanted}
            if same:
                first = len(text[:start].encode()) + (len(files.BOM) if data.startswith(files.BOM) else 0)
                last = first + len(text[start:end].encode())
                whole = memoryview(data)  # of ten megabytes every copy counts
                return b"".join((whole[:first], piece.encode(), whole[last:]))
    raise EditRefused(f"run-image.reference of {path} can't be changed by itself", "write it as the lifecycle does")


def _edited(piece: str, old: str | None, reference: str) -> Iterator[str]:
    """Yield what a piece of the file may become: proposals, to be verified."""
    yield piece.replace(f'reference = "{old}"', f'reference = "{reference}"', 1)

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
    at = 0
    start = None
    while at < len(text):
        end = text.find("\n", at) + 1 or len(text)
        line = text[at:end].strip()
        if start is not None and line.startswith("["):
            yield start, at
            start = None
        if line.startswith("[run-image]"):
            start = at
        at = end
    if start is not None:
        yield start, len(text)
    yield 0, len(text)


def only_value_differs(old: str, new: str, old_value: str | None, value: str) -> bool:
    """Say whether the new text is the old one with another string literal, or with one line more."""
    literal = f'"{value}"'
    at = new.find(literal)
    while at >= 0:
        before, after = new[:at], new[at + len(literal) :]
        if old_value is None:
            same = before[: before.rfind("\n") + 1] + after.partition("\n")[2] in (old, f"{old}\n")
        else:
            gone = old[len(before) : len(old) - len(after)]
            same = before + gone + after == old and _stands_for(gone, old_value)
        if same:
            return True
        at = new.find(literal, at + 1)
    return False


def _stands_for(literal: str, value: str) -> bool:
    line, wanted = f"value = {literal}", {"value": value}
    return plain.tables(line) == {"": wanted} or _parsed(line) == wanted


def _parsed(text: str) -> Mapping[str, object] | None:
    try:
        return files.parse_fully("", text)
    except BrokenFile:
        return None


def _plain_tables(text: str) -> Mapping[str, plain.Table] | None:
    """Return the tables of a plain text, or None where the line reader doesn't see all that is looked at."""
    tables = plain.tables(text)
    return tables if tables is not None and _is_usual(tables) else None


def _is_usual(tables: Mapping[str, plain.Table]) -> bool:
    """Say that no value is of another type, and nothing is hidden."""
    run_image = tables.get("run-image", {})
    seen = [run_image, tables.get("run-image.target", {}), tables.get("image", {})]
    return (
        all(value is not None for table in seen for value in table.values())
        and not {"run-image", "image"} & tables[""].keys()
        and "target" not in run_image
        and ("run-image" in tables or "run-image.target" not in tables)
    )


def _table(path: str, values: Mapping[str, object], key: str) -> dict[str, object]:
    table = values.get(key, {})
    if not isinstance(table, dict):
        raise BrokenFile(f"{path}: {key} isn't a table", "write it as the lifecycle does")
    return table


def _string(path: str, values: Mapping[str, object], key: str) -> str:
    value = values.get(key, "")
    if not isinstance(value, str):
        raise BrokenFile(f"{path}: {key} isn't a string but {value!r}", "write it as the lifecycle does")
    return value


def _boolean(path: str, values: Mapping[str, object], key: str) -> bool:
    value = values.get(key, False)
    if not isinstance(value, bool):
        raise BrokenFile(f"{path}: {key} isn't true or false but {value!r}", "write it as the lifecycle does")
    return value
