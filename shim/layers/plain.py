"""The TOML that the lifecycle itself writes, read line by line.

The lifecycle writes one table header or one `key = value` a line. Reading that takes a tenth of
what `tomllib` takes for the same file, and saves importing it (1.3 bare interpreter starts), which
matters because this is read before every phase. Whatever isn't of that form is refused as a whole
(None), and the caller asks `tomllib`.

Why a line at a time is right: of all values in TOML only multi-line strings, arrays and inline
tables that hold one of those can go over a line's end. A file with a triple quote is refused, so
are inline tables, and of arrays only those pass that are closed on their line. Whether a number or
an escape is one that TOML has is not looked at: that is for whoever needs the value.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    Scalar = str | bool | None
    Table = dict[str, Scalar]
    Line = tuple[str, tuple[str, bool] | None, str, str]
    """The line itself; its header and whether of an array; its key and value."""

_BARE = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-")
_BLANK = " \t\r"
_NOT_IN_TOML = frozenset(map(chr, (*range(9), 11, 12, *range(14, 32), 127)))
"""Control characters, which may not even stand in a comment."""


def tables(text: str) -> dict[str, Table] | None:
    """Return the tables of a TOML text by dotted name, or None where it isn't plain.

    A value is a string, a boolean, or None where it is something else. Of an array of tables the
    last one stands; top-level keys are in the table "".
    """
    read: dict[str, Table] = {"": {}}
    arrays: set[str] = set()
    current = read[""]
    below: list[str] = []
    for entry in _lines(text):
        if entry is None:
            return None
        _, header, key, value = entry
        if header is None:
            if not key:
                continue
            if key in current or (below and key in {table.partition(".")[0] for table in below}):
                return None
            current[key] = _scalar(value)
            continue
        name, is_array = header
        below = [table[len(name) + 1 :] for table in read if table.startswith(f"{name}.")]
        if is_array and name in arrays:
            for table in below:
                del read[f"{name}.{table}"]
                arrays.discard(f"{name}.{table}")
            below = []
        elif name in read or (is_array and below) or _is_a_key(name, read):
            return None
        if is_array:
            arrays.add(name)
        current = read[name] = {}
    return read


def _is_a_key(name: str, read: dict[str, Table]) -> bool:
    """Say whether a table's name, or one that it is below, was a key before."""
    above, _, last = name.rpartition(".")
    return last in read.get(above, ()) or (above != "" and _is_a_key(above, read))


def lines(text: str) -> list[Line] | None:
    """Return each line with its header (name, whether of an array), or key and value; None: not plain."""
    read: list[Line] = []
    for line in _lines(text):
        if line is None:
            return None
        read.append(line)
    return read


def _lines(text: str) -> Iterator[Line | None]:
    """Yield each line, one at a time, as all of them take ten times the text's memory; None: not plain."""
    if '"""' in text or "'''" in text or not _NOT_IN_TOML.isdisjoint(text) or "\r" in text.replace("\r\n", ""):
        yield None
        return
    end = -1
    while end < len(text):
        start = end + 1
        end = text.find("\n", start)
        if end < 0:
            end = len(text)
        line = text[start:end]
        stripped = line.strip(_BLANK)
        if not stripped or stripped[0] == "#":
            yield (line, None, "", "")
        elif stripped[0] == "[":
            is_array = stripped[:2] == "[["
            name = stripped[2:-2] if is_array else stripped[1:-1]
            if stripped != (f"[[{name}]]" if is_array else f"[{name}]") or not _is_dotted(name):
                yield None
                return
            yield (line, (name, is_array), "", "")
        else:
            key, equals, value = stripped.partition("=")
            key, value = key.rstrip(_BLANK), value.lstrip(_BLANK)
            if not equals or not key or not _BARE.issuperset(key) or not _ends_here(value):
                yield None
                return
            yield (line, None, key, value)


def _is_dotted(name: str) -> bool:
    return all(part and _BARE.issuperset(part) for part in name.split("."))


def _ends_here(value: str) -> bool:
    """Say whether a value is surely complete on its line."""
    if not value:
        return False
    if value[0] == "[":
        return value[-1] == "]" and value.count("[") == value.count("]") == 1 and "#" not in value
    if value[0] == '"':
        return len(value) > 1 and value[-1] == '"' and '"' not in value[1:-1].replace('\\"', "")
    return value in ("true", "false") or (
        value[0] in "+-0123456789" and _BARE.issuperset(value.lstrip("+").replace(".", "").replace(":", ""))
    )


def _scalar(value: str) -> Scalar:
    if value[0] == '"' and "\\" not in value:
        return value[1:-1]
    return {"true": True, "false": False}.get(value)
