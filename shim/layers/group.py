"""group.toml, and group.toml without its image extensions.

The restorer reads the extensions for one thing only, to decide whether to ask the registry for the
run image (lifecycle issue 1457). Without them it doesn't.
"""

from __future__ import annotations

from shim.errors import BrokenFile
from shim.layers import files, plain

_KEY = "group-extensions"


def has_extensions(path: str, data: bytes) -> bool:
    """Say whether a group.toml names image extensions.

    Raises:
        BrokenFile: it isn't a group.toml.

    """
    text = files.text_of(path, data)
    tables = plain.tables(text)
    if tables is not None and _KEY not in tables[""]:
        return _KEY in tables
    extensions = files.parse_fully(path, text).get(_KEY, [])
    if not isinstance(extensions, list):
        raise BrokenFile(f"{path}: {_KEY} isn't an array of tables", "let the detector write it anew")
    return bool(extensions)


def without_extensions(path: str, data: bytes) -> bytes:
    """Return a group.toml without its image extensions and otherwise the same.

    Raises:
        BrokenFile: it isn't TOML.

    """
    text = files.text_of(path, data)
    entries = plain.lines(text)
    if entries is None or any(key == _KEY for _, _, key, _ in entries):
        return _without_by_document(path, text)
    kept: list[str] = []
    inside = False
    for line, header, _, _ in entries:
        if header is not None:
            inside = header[0] == _KEY or header[0].startswith(_KEY + ".")
        if not inside:
            kept.append(f"{line}\n")
    whole = "".join(kept)
    return (whole if inside else whole.removesuffix("\n")).encode()  # the last line has no end of its own


def _without_by_document(path: str, text: str) -> bytes:
    import tomlkit  # three bare interpreter starts, and only for a file that the lifecycle didn't write
    from tomlkit.exceptions import TOMLKitError

    wanted = files.parse_fully(path, text)
    if wanted.pop(_KEY, None) is None:
        return text.encode()
    try:
        document = tomlkit.parse(text)
        document.remove(_KEY)
        without = document.as_string()
        if files.parse_fully(path, without) == wanted:
            return without.encode()
    except (TOMLKitError, BrokenFile):
        pass
    raise BrokenFile(f"{path}: {_KEY} can't be left out", "write it as the detector does")
