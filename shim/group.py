"""group.toml without its image extensions, and the note.

The restorer reads the extensions only to decide whether to look the run image up in the registry (issue 1457). The note
lies beside analyzed.toml, from which the detector drops what it doesn't know. The wrapped analyzer leaves in it whether
this is a daemon build, and the wrapped restorer the group; the lifecycle ignores the note's own key.
"""

from __future__ import annotations

from shim import files, toml
from shim.errors import FileProblem, WriteRefused

_KEY = "group-extensions"
_COMMENT = b"# Left by analyzed-shim, for itself and for the restorer.\n"
_NOTES = {None: _COMMENT, True: _COMMENT + b"daemon = true\n", False: _COMMENT + b"daemon = false\n"}


def may_have_extensions(data: bytes) -> bool:
    """Return whether a group.toml may name image extensions, by its bytes alone: most builds need no parser."""
    return _KEY.encode() in data


def has_extensions(path: str, data: bytes) -> bool:
    """Return whether a group.toml names image extensions. Raises FileProblem: it isn't TOML."""
    return may_have_extensions(data) and bool(toml.parse(path, data).get(_KEY))


def leave_note(path: str, daemon: bool) -> None:
    """Write the note: whether this is a daemon build. Raises WriteRefused: it can't be written."""
    files.replace(path, _NOTES[daemon])


def leave_group(path: str, group: str, data: bytes) -> None:
    """Put a group.toml without its extensions into the note, which keeps what it says.

    Raises WriteRefused: it can't be written, or the extensions can't be left out.
    """
    try:
        known = read_note(path)
    except FileProblem:  # it is replaced, as nobody can read it
        known = None
    try:
        note = _NOTES[known] + _without_extensions(data)
        wanted = {key: value for key, value in toml.parse(group, data).items() if key != _KEY}
        if toml.parse(path, note) != {**({} if known is None else {"daemon": known}), **wanted}:
            raise FileProblem(f"{_KEY} isn't the detector's")
    except FileProblem as problem:
        raise WriteRefused(f"{_KEY} can't be left out of {group}: {problem}") from None
    files.replace(path, note)


def read_note(path: str) -> bool | None:
    """Return whether the note says that this is a daemon build; None if it isn't there or doesn't say it.

    Raises FileProblem: it is there, and can't be read.
    """
    try:
        data, _ = files.read(path)
    except FileProblem as problem:
        if problem.missing:
            return None
        raise
    daemon = toml.parse(path, data).get("daemon")
    if daemon is None or isinstance(daemon, bool):
        return daemon
    raise FileProblem(f"{path}: daemon is not true or false", "remove it; the next wrapped analyzer writes it")


def _without_extensions(data: bytes) -> bytes:
    """Return a group.toml without the tables of its extensions: a proposal, to be verified."""
    kept: list[bytes] = []
    inside = False
    for line in data.splitlines(keepends=True):
        if line.lstrip().startswith(b"["):
            inside = line.lstrip().startswith((f"[[{_KEY}]]".encode(), f"[{_KEY}.".encode()))
        if not inside:
            kept.append(line)
    return b"".join(kept)
