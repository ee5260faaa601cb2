"""Fixtures of the tests that need processes and sockets."""

from __future__ import annotations

import pytest

from shim.demo import servers
from tests.support.build import Build
from tests.support.layers import ID


@pytest.fixture
def unknown(build: Build, engine: servers.Engine) -> Build:
    """A build with a daemon that has r:1, of which it isn't known whether it is for a daemon."""
    build.layers.write("r:1", "r:1")
    engine.tag("r:1", f"sha256:{ID}")
    build.env["DOCKER_HOST"] = engine.url
    return build


@pytest.fixture
def known(unknown: Build) -> Build:
    """A shim that will write the ID of the engine's image."""
    unknown.env["ANALYZED_SHIM_DAEMON"] = "true"
    return unknown
