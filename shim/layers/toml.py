"""TOML, read by `tomllib`, whatever somebody wrote: in bounded time, and never with a traceback."""

from __future__ import annotations

from shim.errors import BrokenFile

BOM = b"\xef\xbb\xbf"
"""The byte order mark, which an editor may have put first; the lifecycle's parser leaves it out."""
_DEPTH = 100
"""Parts that a dotted key may have. A parser takes quadratic time for one, and so does whoever compares the tables."""


def text_of(path: str, data: bytes) -> str:
    """Decode TOML, which is UTF-8.

    Raises:
        BrokenFile: it isn't.

    """
    try:
        return data.removeprefix(BOM).decode()
    except UnicodeDecodeError as problem:
        raise BrokenFile(f"{path} is not UTF-8 at byte {problem.start}", "write it as UTF-8") from None


def parse(path: str, text: str) -> dict[str, object]:
    """Return the values of a TOML text.

    Raises:
        BrokenFile: it isn't TOML, or nests too deeply to be read.

    """
    import tomllib  # 1.3 bare interpreter starts, and most builds don't need it

    tip = "fix it, or rerun the preceding phase"
    if _is_too_deep(text):
        raise BrokenFile(f"{path} has a key of more than {_DEPTH} parts", tip)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError, MemoryError) as problem:  # an integer may be too long for Python, too
        raise BrokenFile(f"{path} is not valid TOML: {str(problem)[:200] or type(problem).__name__}", tip) from None


def _is_too_deep(text: str) -> bool:
    """Return whether there may be a dotted key of too many parts; of strings no dot counts."""
    if text.count(".") <= _DEPTH:
        return False
    suspects = [line for line in text.splitlines() if line.count(".") > _DEPTH]
    if not suspects:
        return False
    import re

    # Each alternative matches from any quotation mark on, if need be to the end: so this takes linear time.
    strings = re.compile(r""""(?:[^"\\]|\\.?)*+(?:"|$)|'[^']*+(?:'|$)""")
    return any(strings.sub("", line).count(".") > _DEPTH for line in suspects)
