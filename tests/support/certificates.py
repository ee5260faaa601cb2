"""A daemon's and a client's certificates."""

from __future__ import annotations

import pathlib
import ssl
from typing import Any

import trustme


def certificates(directory: pathlib.Path, authority: trustme.CA, **of_client: Any) -> str:
    """Write what a client of a daemon with TLS has, as `DOCKER_CERT_PATH` names it."""
    directory.mkdir()
    mine = authority.issue_cert("client", **of_client)
    authority.cert_pem.write_to_path(str(directory / "ca.pem"))
    mine.private_key_pem.write_to_path(str(directory / "key.pem"))
    mine.cert_chain_pems[0].write_to_path(str(directory / "cert.pem"))
    return str(directory)


def serving(authority: trustme.CA, *names: str, clients: trustme.CA | None = None, **issued: Any) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(*names, **issued).configure_cert(context)
    if clients:
        clients.configure_trust(context)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
