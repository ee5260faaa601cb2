"""The bundle's `_ssl`: OpenSSL and the extension module lie compressed beside this, and are unpacked into memory.

They are a third of a bundle, and few daemons are asked by TLS. pack packs the lifecycle's layer in every build.
"""

from __future__ import annotations

import ctypes
import importlib.machinery
import os
import sys

_AT = f"{__loader__.archive}/tls/"  # type: ignore[name-defined]  # the zip archive that has this module


def _load() -> None:
    kept = []  # a name that is used again would be taken for the library that had it before

    def in_memory(name: str) -> str:
        kept.append(os.memfd_create(name))
        content = memoryview(__loader__.get_data(_AT + name))  # type: ignore[name-defined]
        while content:
            content = content[os.write(kept[-1], content) :]
        return f"/proc/thread-self/fd/{kept[-1]}"  # bin/python3 had libraries as /proc/self/fd/N

    try:
        order = __loader__.get_data(f"{_AT}order").decode().split()  # type: ignore[name-defined]
        for library in order:
            ctypes.CDLL(in_memory(library), mode=ctypes.RTLD_GLOBAL)
        path = in_memory("_ssl.so")
        loader = importlib.machinery.ExtensionFileLoader("_ssl", path)
        module = loader.create_module(importlib.machinery.ModuleSpec("_ssl", loader, origin=path))
        loader.exec_module(module)
        sys.modules["_ssl"] = module
    finally:
        for descriptor in kept:
            os.close(descriptor)


_load()
