"""TOML, read by `tomllib`, whatever somebody wrote: in linear time, and never with a traceback."""

from __future__ import annotations

from shim.errors import FileProblem

_TIP = "fix it, or rerun the preceding phase"
_DEPTH = 100  # parts that a dotted key may have: tomllib takes quadratic time for one


def parse(path: str, data: bytes) -> dict[str, object]:
    """Return the values of a TOML file. Raises FileProblem: it isn't TOML, or nests too deeply to be read."""
    import tomllib  # two bare interpreter starts, and most builds don't need it

    try:
        text = data.decode()
        if _is_too_deep(text):
            raise FileProblem(f"{path} has a key of more than {_DEPTH} parts", _TIP)
        return tomllib.loads(text)
    except (ValueError, RecursionError) as problem:  # an integer may be too long for Python, too
        reason = str(problem)[:200] or type(problem).__name__
        raise FileProblem(f"{path} is not valid TOML: {reason}", _TIP) from None


def _is_too_deep(text: str) -> bool:
    """Return whether a line has too many dots, those in strings left out."""
    suspects = [line for line in text.split("\n") if line.count(".") > _DEPTH]
    if not suspects:
        return False
    import re

    # Each alternative matches from any quotation mark on, if need be to the end: so this takes linear time.
    strings = re.compile(r""""(?:[^"\\]|\\.?)*+(?:"|$)|'[^']*+(?:'|$)""")
    return any(strings.sub("", line).count(".") > _DEPTH for line in suspects)
