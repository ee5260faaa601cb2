"""group.toml, and group.toml without its image extensions.

The restorer reads the extensions for one thing only, to decide whether to ask the registry for the run image
(lifecycle issue 1457). Without them it doesn't.
"""

from __future__ import annotations

from shim.errors import BrokenFile
from shim.layers import toml
from shim.layers.extensions import KEY, surely_has_none

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MOST = 4 * 1024
"""Characters that `tomlkit` edits; it takes quadratic time for some texts, and the lifecycle wrote none of these."""


def has_extensions(path: str, data: bytes) -> bool:
    """Return whether a group.toml names image extensions.

    Raises:
        BrokenFile: it isn't a group.toml.

    """
    if surely_has_none(data):
        return False
    extensions = toml.parse(path, toml.text_of(path, data)).get(KEY, [])
    if not isinstance(extensions, list):
        raise BrokenFile(f"{path}: {KEY} is not an array of tables", "rerun the detector")
    return bool(extensions)


def without_extensions(path: str, data: bytes) -> bytes:
    """Return a group.toml without its image extensions and otherwise the same.

    Raises:
        BrokenFile: it isn't TOML, or can't be edited.

    """
    text = toml.text_of(path, data)
    wanted = toml.parse(path, text)
    if wanted.pop(KEY, None) is None:
        return text.encode()
    for proposal in _proposals(text):
        try:
            if toml.parse(path, proposal) == wanted:
                return proposal.encode()
        except (BrokenFile, RecursionError):
            pass
    raise BrokenFile(f"{path}: {KEY} can't be left out", "write it as the detector does")


def _proposals(text: str) -> Iterator[str]:
    """Yield what the text may be without its extensions: proposals, to be verified."""
    kept: list[str] = []
    inside = False
    for line in text.splitlines(keepends=True):
        start = line.lstrip()
        if start.startswith("["):
            inside = start.startswith((f"[[{KEY}]]", f"[{KEY}.", f"[[{KEY}."))
        if not inside:
            kept.append(line)
    yield "".join(kept)
    if len(text) > _MOST:
        return
    import tomlkit  # three bare interpreter starts, and only for a file that the lifecycle didn't write
    from tomlkit.exceptions import TOMLKitError

    try:
        document = tomlkit.parse(text)
        document.remove(KEY)
        yield document.as_string()
    except (TOMLKitError, ValueError, RecursionError):
        pass
