"""The bundle's `idna` codec: `socket` encodes every host name by it, and the standard library's needs unicodedata.

A name that isn't ASCII has to be given in its encoded form (`xn--…`), as the lifecycle's own client wants it too.
"""

from __future__ import annotations

import codecs
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer


def _encode(text: str, errors: str = "strict") -> tuple[bytes, int]:
    return codecs.ascii_encode(text, errors)


def _decode(content: Buffer, errors: str = "strict") -> tuple[str, int]:
    return codecs.ascii_decode(content, errors)


def getregentry() -> codecs.CodecInfo:
    """Return what the codec registry asks every module of `encodings` for."""
    return codecs.CodecInfo(name="idna", encode=_encode, decode=_decode)
