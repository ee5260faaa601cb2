"""Words from outside, made fit for one line of a log or a report."""

from __future__ import annotations

_MOST = 300
_HIDDEN = "***"


def plain(text: object, most: int = _MOST) -> str:
    r"""Return what others wrote as one line: white space joined, what isn't printable as `\x1b`, cut at the end.

    A registry's or a daemon's error, or a name in a file, could otherwise move the cursor, colour the rest of the log
    or look like a line of its own.

    Args:
        text: what they wrote; an exception without words is shown by its type.
        most: characters that the line may have.

    """
    words = str(text) or (type(text).__name__ if isinstance(text, Exception) else "")
    line = " ".join(words[: 4 * most].split())
    line = "".join(letter if letter.isprintable() else _escaped(letter) for letter in line)
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _escaped(letter: str) -> str:
    number = ord(letter)
    return f"\\x{number:02x}" if number < 0x100 else f"\\u{number:04x}" if number < 0x10000 else f"\\U{number:08x}"


def without_secrets(address: str) -> str:
    """Return an address without what may be secret in it: a user, a password, a query.

    An address that is wrong is shown in an error, so everything up to the last `@` is hidden, whatever it is. In a
    path, and so in the address of a Unix socket, an `@` is a letter as any other.
    """
    scheme, separator, rest = address.partition("://")
    if not separator:
        scheme, rest = "", address
    authority, slash, path = rest.partition("/")
    if scheme.lower() == "unix" or rest.startswith("/"):
        secret, at, host = authority.rpartition("@")
        return f"{scheme}{separator}{_HIDDEN if secret else ''}{at}{host}{slash}{path}"
    secret, at, host = rest.rpartition("@")
    host = host.partition("?")[0].partition("#")[0]
    return f"{scheme}{separator}{_HIDDEN if secret else ''}{at}{host}"
