"""What is in a bundle: its licences, a bill of materials, and whether all of it is still there.

The bill of materials is CycloneDX 1.5 JSON (https://cyclonedx.org/docs/1.5/json/), without a time, so that two bundles
of the same parts are the same. It lists every file with its SHA-256, by which a damaged bundle is noticed.
"""

from __future__ import annotations

import glob
import hashlib
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
from typing import TYPE_CHECKING, Any

import shim

if TYPE_CHECKING:
    import importlib.metadata
    from collections.abc import Iterator, Mapping

SBOM = "sbom.cdx.json"
_KNOWN = {
    "ld-": ("libc", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc/"),
    "libc.": ("libc", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc/"),
    "libm.": ("libc", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc/"),
    "libpthread": ("libc", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc/"),
    "libdl.": ("libc", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc/"),
    "libutil": ("libc", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc/"),
    "librt.": ("libc", "LGPL-2.1-or-later", "https://www.gnu.org/software/libc/"),
    "libssl": ("OpenSSL", "Apache-2.0", "https://www.openssl.org/"),
    "libcrypto": ("OpenSSL", "Apache-2.0", "https://www.openssl.org/"),
    "libz.": ("zlib", "Zlib", "https://zlib.net/"),
    "libexpat": ("Expat", "MIT", "https://libexpat.github.io/"),
    "libpython": ("CPython", "PSF-2.0", "https://www.python.org/"),
    "libffi": ("libffi", "MIT", "https://sourceware.org/libffi/"),
    "libuuid": ("libuuid", "BSD-3-Clause", "https://github.com/util-linux/util-linux"),
}
"""Shared libraries by how their name begins: what they are of, its licence (SPDX), its home page."""


def write(
    bundle: pathlib.Path,
    distributions: list[importlib.metadata.Distribution],
    libraries: list[pathlib.Path],
    interpreter: pathlib.Path,
) -> None:
    """Write a bundle's `licenses` and its bill of materials.

    Args:
        bundle: with everything else in it.
        distributions: the packages in it.
        libraries: the shared libraries in it, as they lie on this machine.
        interpreter: the interpreter in it.

    """
    licenses = bundle / "licenses"
    licenses.mkdir()
    components = [_component("library", "analyzed-shim", shim.__version__, "Apache-2.0", "")]
    own = pathlib.Path(shim.__file__).parent.parent / "LICENSE"
    _copy(licenses / "analyzed-shim", *([own] if own.is_file() else _license_files("analyzed-shim")))
    components.append(_component("library", "CPython", sys.version.split()[0], "PSF-2.0", "https://www.python.org/"))
    _copy(licenses / "CPython", pathlib.Path(sysconfig.get_path("stdlib")) / "LICENSE.txt", *_of_package(interpreter))
    for distribution in distributions:
        if distribution.name == "analyzed-shim":
            continue
        metadata = distribution.metadata
        licence = next((metadata[key] for key in ("License-Expression", "License") if key in metadata), "NOASSERTION")
        components.append(_component("library", distribution.name, distribution.version, licence.split("\n")[0], ""))
        _copy(licenses / distribution.name, *_license_files(distribution.name))
    seen: dict[str, dict[str, Any]] = {}
    for path in libraries:
        name, licence, page = next(
            (known for start, known in _KNOWN.items() if path.name.startswith(start)), ("", "", "")
        )
        package, version = _package_of(path)
        component = _component("library", name or path.name, version, licence or "NOASSERTION", page)
        if package:
            component["properties"] = [{"name": "package", "value": package}]
        seen.setdefault(component["name"], component)
        if component["name"] != "CPython":
            _copy(licenses / component["name"], *_of_package(path))
    components += [component for name, component in sorted(seen.items()) if name != "CPython"]
    for component in components:
        text = licenses / component["name"]
        if not text.exists():  # a library whose licence this machine has no copy of
            said = component["licenses"][0]["license"]["name"]
            text.write_text(f"{component['name']} {component['version']}: {said}\n{component.get('purl', '')}\n")
    files = {str(path.relative_to(bundle)): path.read_bytes() for path in _files(bundle)}
    (bundle / SBOM).write_bytes(_bill(components, files))


def relisted(files: Mapping[str, bytes]) -> bytes:
    """Return the bill of materials of a bundle whose files changed: their content by their path, the old one's too."""
    before = json.loads(files[SBOM])["components"]
    return _bill([component for component in before if component["type"] != "file"], files)


def is_whole(bundle: pathlib.Path) -> bool:
    """Return whether a bundle has every file that its bill of materials lists, as it was."""
    try:
        content = json.loads((bundle / SBOM).read_bytes())
        listed = {
            part["name"]: part["hashes"][0]["content"] for part in content["components"] if part["type"] == "file"
        }
        found = {str(path.relative_to(bundle)): _hash(path.read_bytes()) for path in _files(bundle)}
    except (OSError, ValueError, KeyError, TypeError, IndexError):
        return False
    return found == listed and os.access(bundle / "bin" / "python3", os.X_OK)


def _files(bundle: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in sorted(bundle.rglob("*")):
        if path.is_file() and path != bundle / SBOM:
            yield path


def _hash(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def _bill(components: list[dict[str, Any]], files: Mapping[str, bytes]) -> bytes:
    listed = [
        {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": _hash(content)}]}
        for name, content in sorted(files.items())
        if name != SBOM
    ]
    content = {"bomFormat": "CycloneDX", "specVersion": "1.5", "version": 1, "components": [*components, *listed]}
    return json.dumps(content, indent=1).encode() + b"\n"


def _component(kind: str, name: str, version: str, licence: str, page: str) -> dict[str, Any]:
    component: dict[str, Any] = {"type": kind, "name": name, "version": version}
    component["licenses"] = [{"license": {"name": licence}}]
    if page:
        component["externalReferences"] = [{"type": "website", "url": page}]
    return component


def _copy(target: pathlib.Path, *sources: pathlib.Path) -> None:
    """Write the texts of some files that are there, one after the other."""
    if not target.exists() and any(source.is_file() for source in sources):
        target.write_bytes(b"\n".join(source.read_bytes() for source in sources if source.is_file()))


def _license_files(name: str) -> list[pathlib.Path]:
    import importlib.metadata

    try:
        files = importlib.metadata.distribution(name).files or ()
    except importlib.metadata.PackageNotFoundError:
        return []
    wanted = re.compile(r"^(LICEN[CS]E|COPYING|NOTICE)", re.IGNORECASE)
    return [pathlib.Path(str(file.locate())) for file in files if wanted.match(file.name)]


def _package_of(path: pathlib.Path) -> tuple[str, str]:
    """Return the distribution's package that a file is of, and its version; empty if nothing here knows."""
    for query, version in (
        (["dpkg-query", "--search"], ["dpkg-query", "--show", "--showformat=${Version}"]),
        (["rpm", "-qf", "--queryformat=%{NAME}:"], ["rpm", "-q", "--queryformat=%{VERSION}-%{RELEASE}"]),
    ):
        if shutil.which(query[0]):
            for name in (str(path), os.path.realpath(path), os.path.realpath(path).removeprefix("/usr")):
                found = subprocess.run([*query, name], capture_output=True, text=True, check=False)
                if not found.returncode and found.stdout:
                    package = found.stdout.partition(":")[0]
                    told = subprocess.run([*version, package], capture_output=True, text=True, check=False)
                    return package, told.stdout.strip().partition("\n")[0]
    return "", ""


def _of_package(path: pathlib.Path) -> list[pathlib.Path]:
    package, _ = _package_of(path)
    if not package:
        return []
    found = [f"/usr/share/doc/{package}/copyright", *sorted(glob.glob(f"/usr/share/licenses/{package}/*"))]
    if "libc" in package and os.path.exists("/usr/share/common-licenses/LGPL-2.1"):
        found.append("/usr/share/common-licenses/LGPL-2.1")
    return [pathlib.Path(name) for name in found]
