"""Stand-in restorers, by what they do."""

from __future__ import annotations

import pathlib

from tests.support.layers import ID, Layers
from tests.support.processes import program
from tests.support.shim import Shim


def rewriting(shim: Shim, layers: Layers) -> pathlib.Path:
    """A restorer that rewrites the reference r:1 to a digest."""
    sed = f'sed -i \'s/reference = "r:1"/reference = "r@sha256:{ID}"/\' {layers.toml}'
    return program(shim.directory / "restorer", f"#!/bin/sh\n{sed}\n")
