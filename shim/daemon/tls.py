"""TLS as the phase's client has it: if `DOCKER_CERT_PATH` is set, and verified if `DOCKER_TLS_VERIFY` isn't empty."""

from __future__ import annotations

import os
import ssl
from typing import TYPE_CHECKING

from shim.errors import Unreachable
from shim.words import plain

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

_FILES = (
    "/etc/ssl/certs/ca-certificates.crt",
    "/etc/pki/tls/certs/ca-bundle.crt",
    "/etc/ssl/ca-bundle.pem",
    "/etc/pki/tls/cacert.pem",
    "/etc/pki/ca-trust/extracted/pem/tls-ca-bundle.pem",
    "/etc/ssl/cert.pem",
)
"""Where Go's `crypto/x509` looks for the system's authorities; the first that is there counts."""
_DIRECTORIES = ("/etc/ssl/certs", "/etc/pki/tls/certs")
"""All files of these count too."""
_TIP = "fix the file, or unset DOCKER_CERT_PATH if the daemon does not use TLS"


def context_of(environ: Mapping[str, str]) -> ssl.SSLContext | None:
    """Return what TLS connections to the daemon are made with, or None where there is no TLS.

    Args:
        environ: the environment of the phase.

    Raises:
        Unreachable: a certificate or key can't be used; the phase's client refuses it too.

    """
    directory = environ.get("DOCKER_CERT_PATH")
    if not directory:
        return None
    context = _context()
    if environ.get("DOCKER_TLS_VERIFY"):
        _trust_system(context, environ)
        _load(directory, "ca.pem", context.load_verify_locations, os.path.join(directory, "ca.pem"))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    pair = (os.path.join(directory, "cert.pem"), os.path.join(directory, "key.pem"))
    for path in pair:
        _load(directory, os.path.basename(path), lambda path=path: open(path, "rb").close())
    _load(directory, "cert.pem and key.pem", context.load_cert_chain, *pair, lambda: "")  # else it asks the terminal
    return context


def system_context(environ: Mapping[str, str]) -> ssl.SSLContext:
    """Return what a proxy is asked with by TLS: the system's authorities count."""
    context = _context()
    _trust_system(context, environ)
    return context


def _context() -> ssl.SSLContext:
    """Return a context that takes the certificates that Go takes.

    `ssl.create_default_context` would not: from Python 3.13 on it wants extensions of an authority's certificate that
    docker:dind did not write for years; a distribution's OpenSSL refuses RSA keys of 1024 bits; neither takes a
    server's own certificate for its authority. Go does, and it does not look at the common name.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    context.set_ciphers("DEFAULT:@SECLEVEL=1")
    context.hostname_checks_common_name = False
    return context


def _load(directory: str, name: str, load: object, *arguments: object) -> None:
    try:
        load(*arguments)  # type: ignore[operator]
    except FileNotFoundError:
        reason = "not found"
    except PermissionError:
        reason = "permission denied"
    except ssl.SSLError as problem:
        reason = plain(problem.reason or problem)
    except (OSError, ValueError) as problem:
        reason = plain(getattr(problem, "strerror", None) or problem)
    else:
        return
    raise Unreachable(f"{name} in DOCKER_CERT_PATH={plain(directory)} cannot be used: {reason}", _TIP)


def _trust_system(context: ssl.SSLContext, environ: Mapping[str, str]) -> None:
    for path in _system_files(environ):
        try:
            context.load_verify_locations(path)
        except (OSError, ValueError):  # ssl.SSLError is an OSError: it has no certificate, which Go skips as well
            continue


def _system_files(environ: Mapping[str, str]) -> Iterator[str]:
    """Yield the files that Go reads authorities from, with its own variables for them."""
    files = (environ["SSL_CERT_FILE"],) if environ.get("SSL_CERT_FILE") else _FILES
    yield from [path for path in files if os.path.isfile(path)][:1]
    directories = environ["SSL_CERT_DIR"].split(":") if environ.get("SSL_CERT_DIR") else _DIRECTORIES
    for directory in directories:
        try:
            entries = sorted(os.scandir(directory), key=lambda entry: entry.name)
        except OSError:
            continue
        for entry in entries:
            beside = entry.is_symlink() and "/" not in os.readlink(entry.path)  # is read by its other name
            if not beside and entry.is_file():
                yield entry.path
