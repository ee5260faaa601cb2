"""Fixtures of the tests that need real engines."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from shim.demo import images
from shim.demo.images import Image
from shim.demo.lifecycle import ARCHITECTURE
from tests.support import real
from tests.support.ground import Ground


@pytest.fixture(scope="session")
def made() -> dict[str, Image]:
    return {
        "base": images.single("base", ARCHITECTURE),
        "single": images.single("single", ARCHITECTURE),
        "multi": images.multi("multi"),
        "newer": images.multi("newer"),
    }


@pytest.fixture
def ground(real_parts: tuple[real.Engine, real.Registry], made: dict[str, Image]) -> Iterator[Ground]:
    ground = Ground(*real_parts, made)
    yield ground
    ground.engine.forget(ground.registry.host)
