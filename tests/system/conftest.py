"""Fixtures of the tests that need real engines."""

from __future__ import annotations

import pathlib
import subprocess
import sys
from collections.abc import Iterator

import pytest

from shim.demo import images
from shim.demo.images import Image
from shim.demo.lifecycle import ARCHITECTURE
from tests.support import real
from tests.support.ground import Ground

ROOT = pathlib.Path(__file__).parents[2]


@pytest.fixture(scope="session")
def made() -> dict[str, Image]:
    return {
        "base": images.single("base", ARCHITECTURE),
        "single": images.single("single", ARCHITECTURE),
        "multi": images.multi("multi"),
        "newer": images.multi("newer"),
    }


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The wheel of this checkout."""
    directory = tmp_path_factory.mktemp("dist")
    directory.chmod(0o755)
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(directory)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return next(directory.glob("*.whl"))


@pytest.fixture
def ground(real_parts: tuple[real.Engine, real.Registry], made: dict[str, Image]) -> Iterator[Ground]:
    ground = Ground(*real_parts, made)
    yield ground
    ground.engine.forget(ground.registry.host)
