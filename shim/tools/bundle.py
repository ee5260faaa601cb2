"""`bundle`: make a self-contained bundle of the shim, which runs where there is no Python, no shell and no libc.

It is an interpreter with the part of its standard library that the shim imports, the shim and tomlkit, all compiled,
and the loader and shared libraries of this machine beside them. Why it is made like this: docs/explanation/bundle.md.

    bin/python3                     starts lib/python by lib/ld.so (packaging/start.c)
    lib/python, lib/ld.so, lib/*.so*    in a lifecycle image most of it in lib/packed (pack)
    lib/python3XX.zip               the standard library and tomlkit; OpenSSL, compressed (bundled_ssl)
    lib/python3.XX/lib-dynload/     extension modules
    site-packages/shim/
    licenses/, sbom.cdx.json
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import pathlib
import platform
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from typing import TYPE_CHECKING, Any

import shim
from shim.errors import ShimError
from shim.record import Record, environment
from shim.tools import elf, inventory

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

_LAZY = (
    *("_decimal", "_pyio", "_strptime", "asyncio", "bz2", "concurrent", "difflib", "doctest", "ftplib"),
    *("getopt", "gettext", "lzma", "mimetypes", "multiprocessing", "netrc", "optparse", "pdb", "pydoc", "readline"),
    *("tarfile", "tkinter", "unittest", "xml", "xmlrpc", "zipfile", "argparse", "statistics", "fractions"),
    *("email._header_value_parser", "email.contentmanager", "email.generator", "email.headerregistry", "email.policy"),
    *("_blake2", "_csv", "_hashlib", "_md5", "_sha1", "_sha3", "csv", "importlib.metadata", "importlib.resources"),
    *("logging", "pickle", "pprint", "unicodedata", "stringprep", "_sitebuiltins", "site", "tracemalloc"),
)
"""What the standard library imports in functions which the shim never calls, or can do without.

`decimal` has a pure Python part for where there is no `_decimal`; the `idna` codec is the bundle's own.
"""
_CODECS = ("ascii", "cp437", "idna", "latin_1", "raw_unicode_escape", "unicode_escape", "utf_8", "utf_8_sig")
"""Codecs that are imported by name; the interpreter runs in UTF-8 mode, so no locale needs another."""
_ASKED = ("zlib",)
"""What the interpreter imports by itself, for the zip archive."""
_TOOLS = ("shim.tools", "shim.demo")
_NEVER = re.compile(
    r"(^|/)(test|tests|idlelib|tkinter|turtledemo|ensurepip|lib2to3|pydoc_data|site-packages|dist-packages|__pycache__"
    r"|config-[^/]*|turtle\.py|_test[^/]*|xx[^/]*|_xx[^/]*|_tkinter[^/]*)(/|$)"
)
"""What not even the whole of it has of the standard library."""
_OLDEST = (1980, 1, 1, 0, 0, 0)
"""The time of every file in a zip archive, so that two bundles of the same parts are the same."""


class CannotBundle(ShimError):
    """An interpreter or a machine's set-up can't be bundled."""


class Module(Record):
    """A file of a package or of the standard library."""

    path: pathlib.Path
    name: str
    """Where it lies below the directory that it is imported from, such as `json/decoder.py`."""


def make(directory: str | os.PathLike[str], *, whole: bool = False) -> pathlib.Path:
    """Make a bundle of the interpreter that runs this, and return its path.

    Args:
        directory: where; it must not be there yet, and is there only when it is complete.
        whole: with all commands and their dependencies, for an image of its own; else what the drop-ins and `run` need.

    Raises:
        CannotBundle: the interpreter or a library of its can't be bundled, or the directory can't be made.

    """
    target = pathlib.Path(os.path.abspath(directory))
    _check_interpreter()
    try:
        if os.path.lexists(target):
            raise CannotBundle(f"{target} exists", "name a directory that doesn't")
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f".{target.name}.", dir=target.parent) as name:
            made = pathlib.Path(name) / "bundle"
            _make(made, whole)
            os.rename(made, target)
    except OSError as problem:
        raise CannotBundle(f"can't make {target}: {problem}", "check its owner, mode and disk space") from None
    return target


def describe(bundle: pathlib.Path) -> str:
    """Return a bundle's path, size and number of files in a line."""
    sizes = [path.stat().st_size for path in bundle.rglob("*") if path.is_file()]
    return f"{bundle}: {sum(sizes) / 1e6:.1f} MB in {len(sizes)} files"


def cached(environ: Mapping[str, str], tell: Callable[[str], None]) -> pathlib.Path:
    """Return the bundle of this version, interpreter and architecture in the user's cache; make it if it isn't there.

    Two at once both make one, and the first to finish puts it there. One that was damaged is made again.

    Args:
        environ: `XDG_CACHE_HOME`, else `HOME` says where the cache is.
        tell: is told what takes longer than two seconds.

    Raises:
        CannotBundle: it can't be made.

    """
    root = environment(environ, "XDG_CACHE_HOME")
    cache = pathlib.Path(root if root and root.startswith("/") else os.path.expanduser("~/.cache")) / "analyzed-shim"
    target = cache / f"bundle-{shim.__version__}-{sysconfig.get_python_version()}-{platform.machine()}-{_fingerprint()}"
    if inventory.is_whole(target):
        return target
    tell(f"making the bundle {target}")
    try:
        cache.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".making.", dir=cache) as name:
            made = make(pathlib.Path(name) / "bundle")
            if target.exists():
                os.rename(target, pathlib.Path(name) / "broken")
            with contextlib.suppress(FileExistsError, OSError):  # another one was faster
                os.rename(made, target)
    except OSError as problem:
        raise CannotBundle(
            f"can't write the cache {cache}: {problem}", "pass --bundle, or set XDG_CACHE_HOME"
        ) from None
    if not inventory.is_whole(target):
        raise CannotBundle(f"{target} is not complete", "remove it and try again")
    return target


def _fingerprint() -> str:
    """Return what changes with any part that goes into the bundle: the shim's own files and the interpreter."""
    import hashlib

    parts = [f"{sys.version} {sysconfig.get_path('stdlib')} {importlib.metadata.version('tomlkit')}"]
    package = pathlib.Path(shim.__file__).parent
    parts += [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in sorted(package.rglob("*.py"))]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()[:12]


def _check_interpreter() -> None:
    other = "use a CPython of Debian, Fedora, uv or pyenv, or pass --bundle with one made elsewhere"
    if not sys.platform.startswith("linux"):
        raise CannotBundle(f"a bundle can't be made on {sys.platform}", "make it on Linux, and pass --bundle")
    if sys.implementation.name != "cpython":
        raise CannotBundle(f"{sys.implementation.name} can't be bundled", other)
    if not _start().is_file():
        raise CannotBundle(f"a bundle can't be made on {platform.machine()}", "make it on x86_64 or aarch64")
    if elf.read(_interpreter()).interpreter is None:
        raise CannotBundle(f"{_interpreter()} is linked statically, and can't load extension modules", other)
    if sysconfig.get_config_var("Py_DEBUG"):
        raise CannotBundle("a debug build of Python can't be bundled", other)


def _start() -> pathlib.Path:
    return pathlib.Path(__file__).parent / "start" / platform.machine()


def _interpreter() -> pathlib.Path:
    return pathlib.Path(os.path.realpath(getattr(sys, "_base_executable", sys.executable)))


def _make(target: pathlib.Path, whole: bool) -> None:
    version = f"python{sysconfig.get_python_version()}"
    library, packages = target / "lib", target / "site-packages"
    extensions = library / version / "lib-dynload"
    for directory in (target / "bin", extensions, packages):
        directory.mkdir(parents=True)
    start = target / "bin" / "python3"
    shutil.copyfile(_start(), start)
    start.chmod(0o755)
    python, extensions_from = [*_whole_library()] if whole else [*_needed()], {}
    sources = [module for module in python if module.path.suffix == ".py"]
    tls = None
    for module in python:
        if module.name.startswith("_ssl.") and not whole:
            tls = module.path
        elif module.path.suffix != ".py":
            extensions_from[extensions / module.path.name] = module.path
    # The interpreter takes the directory that has this one for its own.
    _compile(next(module.path for module in sources if module.name == "os.py"), library / version / "os.pyc", "os.py")
    distributions = _distributions(whole)
    for module in _package_files(distributions, whole):
        destination = packages / module.name
        destination.parent.mkdir(parents=True, exist_ok=True)
        if module.path.suffix == ".py":
            _compile(module.path, destination.with_suffix(".pyc"), module.name, docstrings=whole)
        else:
            shutil.copyfile(module.path, destination)
    libraries = _lay_beside(library, extensions_from, list(packages.rglob("*.so")))
    archive = library / f"{version.replace('.', '')}.zip"
    if tls is not None:
        sources.append(Module(path=pathlib.Path(__file__).parent / "bundled_ssl.py", name="_ssl.py"))
    _zip(archive, sources)
    if tls is not None:
        libraries += _add_tls(archive, tls, library)
    inventory.write(target, distributions, libraries, _interpreter())
    _try(target)


def _try(bundle: pathlib.Path) -> None:
    """Have a bundle import all that is in it, without this machine's libraries and environment.

    Raises:
        CannotBundle: it doesn't start, or something is missing in it.

    """
    code = (
        f"import sys; sys.path.insert(0, {str(bundle / 'site-packages')!r}); import tomlkit, tomllib, http.client, ssl;"
        "import shim.phase.wrap, shim.daemon.client, shim.layers.analyzed; 'x'.encode('idna')"
    )
    command = [str(bundle / "bin" / "python3"), "-ISXutf8", "-c", code]
    tried = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    if tried.returncode:
        said = (tried.stderr.splitlines() or [f"exit status {tried.returncode}"])[-1]
        raise CannotBundle(
            f"{_interpreter()} can't be bundled: {said}",
            "use another Python, or pass --bundle with one made elsewhere",
        )


def _needed() -> Iterator[Module]:
    """Yield the modules of the standard library and of tomlkit that the shim imports, directly or not."""
    import _imp
    import modulefinder

    import tomlkit

    finder = modulefinder.ModuleFinder(excludes=[*_LAZY, *_TOOLS, "docker", "requests", "typer"])
    package = pathlib.Path(shim.__file__).parent
    own = [path.relative_to(package.parent).with_suffix("") for path in package.rglob("*.py")]
    roots = [".".join(path.parts).removesuffix(".__init__") for path in own]
    roots = [root for root in roots if not root.startswith(_TOOLS)]
    for root in (*roots, *_ASKED, "ctypes", *(f"encodings.{name}" for name in _CODECS)):
        finder.import_hook(root)
    stdlib = pathlib.Path(sysconfig.get_path("stdlib"))
    frozen = set(_imp._frozen_module_names())  # type: ignore[attr-defined]  # they are in the interpreter's own file
    beside = pathlib.Path(tomlkit.__file__).parent.parent
    for name, module in dict[str, Any](finder.modules).items():
        path = pathlib.Path(module.__file__ or "")
        if name in frozen and name != "os":
            continue
        if name == "encodings.idna":
            yield Module(path=package / "tools" / "ascii_idna.py", name="encodings/idna.py")
        elif name.partition(".")[0] != "shim" and module.__file__:
            above = beside if name.partition(".")[0] == "tomlkit" else stdlib
            yield Module(path=path, name=str(path.relative_to(above)) if path.suffix == ".py" else path.name)


def _whole_library() -> Iterator[Module]:
    stdlib = pathlib.Path(sysconfig.get_path("stdlib"))
    for path in sorted(stdlib.rglob("*")):
        name = str(path.relative_to(stdlib))
        if path.suffix in (".py", ".so") and not _NEVER.search(name):
            yield Module(path=path, name=name)


def _distributions(whole: bool) -> list[importlib.metadata.Distribution]:
    """Return the installed packages that the bundle has, the shim itself first."""
    wanted, found = ["analyzed-shim", "lz4"] if whole else ["tomlkit"], {}
    while wanted:
        name = wanted.pop(0)
        if re.sub(r"[-_.]+", "-", name).lower() in found:
            continue
        try:
            distribution = importlib.metadata.distribution(name)
        except importlib.metadata.PackageNotFoundError:
            if name in ("tomlkit", "docker", "typer"):
                raise CannotBundle(f"the package {name} is not installed", "install analyzed-shim again") from None
            continue  # for another platform, or of an extra that wasn't asked for
        found[re.sub(r"[-_.]+", "-", name).lower()] = distribution
        for requirement in distribution.requires or ():
            if "extra ==" not in requirement:
                wanted.append(re.split(r"[^A-Za-z0-9._-]", requirement, maxsplit=1)[0])
    return list(found.values())


def _package_files(distributions: list[importlib.metadata.Distribution], whole: bool) -> Iterator[Module]:
    """Yield the files of the shim, and, for the whole of it, of the packages that it depends on."""
    package = pathlib.Path(shim.__file__).parent
    for path in sorted(package.rglob("*")):
        name = str(path.relative_to(package.parent))
        if name.startswith("shim/demo/") or "__pycache__" in path.parts or not path.is_file():
            continue
        if whole or (path.suffix == ".py" and not name.startswith("shim/tools/")):
            yield Module(path=path, name=name)
    if not whole:
        yield Module(path=package / "tools" / "__init__.py", name="shim/tools/__init__.py")
        yield Module(path=package / "tools" / "bundled.py", name="shim/tools/cli.py")
        return
    for distribution in distributions:
        for file in distribution.files or ():
            located = pathlib.Path(str(file.locate()))
            outside = file.parts[0] in ("..", "bin") or "__pycache__" in file.parts or file.suffix == ".pth"
            if not outside and file.parts[0] != "shim" and located.is_file():
                yield Module(path=located, name=str(file))


def _compile(source: pathlib.Path, target: pathlib.Path, name: str, *, docstrings: bool = False) -> None:
    import py_compile

    py_compile.compile(
        *(str(source), str(target), name),
        doraise=True,
        optimize=0 if docstrings else 2,  # typer shows docstrings
        invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH,  # no time in it
    )


def _zip(target: pathlib.Path, modules: list[Module]) -> None:
    with zipfile.ZipFile(target, "w") as archive, tempfile.TemporaryDirectory(dir=target.parent) as name:
        compiled = pathlib.Path(name) / "compiled.pyc"
        for module in sorted(modules, key=lambda module: module.name):
            _compile(module.path, compiled, module.name)
            entry = zipfile.ZipInfo(module.name + "c", _OLDEST)
            # What every start reads is there as it is; zlib is a library more to load.
            early = module.name.startswith(("encodings/", "__future__"))
            archive.writestr(entry, compiled.read_bytes(), zipfile.ZIP_STORED if early else zipfile.ZIP_DEFLATED)


def _lay_beside(
    library: pathlib.Path, extensions: Mapping[pathlib.Path, pathlib.Path], packaged: list[pathlib.Path]
) -> list[pathlib.Path]:
    """Copy the interpreter, its loader, extension modules and every shared library; return the libraries' origins."""
    loader = elf.read(_interpreter()).interpreter or ""
    copies = {library / "python": _interpreter(), library / "ld.so": pathlib.Path(loader), **extensions}
    origins = [pathlib.Path(loader)]
    for program in (*copies.values(), *packaged):
        for path in _shared_libraries(loader, program) if program != pathlib.Path(loader) else ():
            if library / path.name not in copies and os.path.basename(loader) != path.name:
                copies[library / path.name] = path
                origins.append(path)
    for target, path in copies.items():
        shutil.copyfile(path, target)
        if target.name != "ld.so":
            elf.strip(target)
        target.chmod(0o755)
    for path in packaged:
        elf.strip(path)
    return origins


def _add_tls(archive: pathlib.Path, extension: pathlib.Path, library: pathlib.Path) -> list[pathlib.Path]:
    """Add the `_ssl` extension module and the libraries that nothing else needs to the archive; return the libraries.

    `bundled_ssl` is what unpacks them.
    """
    loader = elf.read(_interpreter()).interpreter or ""
    beside = {path.name for path in library.iterdir()} | {os.path.basename(loader)}
    needed = [path for path in _shared_libraries(loader, extension) if path.name not in beside]
    with zipfile.ZipFile(archive, "a") as added, tempfile.TemporaryDirectory(dir=library) as name:
        for path, inside in ((extension, "_ssl.so"), *((path, path.name) for path in needed)):
            copy = pathlib.Path(name) / inside
            shutil.copyfile(path, copy)
            elf.strip(copy)
            added.writestr(zipfile.ZipInfo(f"tls/{inside}", _OLDEST), copy.read_bytes(), zipfile.ZIP_DEFLATED, 9)
        # The loader lists a library before those that it needs.
        order = " ".join(path.name for path in reversed(needed))
        added.writestr(zipfile.ZipInfo("tls/order", _OLDEST), order)
    return needed


def _shared_libraries(loader: str, program: pathlib.Path) -> list[pathlib.Path]:
    """Return what a program's loader loads for it, as `ldd` would; there need be no `ldd`.

    Raises:
        CannotBundle: a library of its was not found.

    """
    listed = subprocess.run([loader, "--list", str(program)], capture_output=True, text=True, check=False).stdout
    missing = re.findall(r"(\S+) => not found", listed)
    if missing:
        raise CannotBundle(f"{program} needs {missing[0]}, which was not found", "install it, or use another Python")
    return [pathlib.Path(path) for path in re.findall(r"=> (/\S+) \(0x", listed)]
