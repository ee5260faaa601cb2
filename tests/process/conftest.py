"""Fixtures of the tests that need processes and sockets."""

from __future__ import annotations

import pathlib
import ssl
from collections.abc import Callable, Iterator

import pytest

from shim.demo import servers
from tests.support.build import Build
from tests.support.daemons import HAS, VERSION, Answer, Faulty, Tcp
from tests.support.layers import ID, Layers


@pytest.fixture
def known(build: Build, layers: Layers, engine: servers.Engine) -> Build:
    """A shim that will write the ID of the engine's image."""
    layers.write("r:1", "r:1")
    engine.tag("r:1", f"sha256:{ID}")
    build.env |= {"DOCKER_HOST": engine.url, "ANALYZED_SHIM_DAEMON": "true"}
    return build


@pytest.fixture
def faulty(tmp_path: pathlib.Path) -> Iterator[Callable[..., Faulty]]:
    servers: list[Faulty] = []

    def start(image: Answer, version: Answer = VERSION) -> Faulty:
        servers.append(Faulty(tmp_path / f"faulty{len(servers)}.sock", image, version))
        return servers[-1]

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def tcp() -> Iterator[Callable[..., Tcp]]:
    started: list[Tcp] = []

    def start(context: ssl.SSLContext | None = None, image: Answer = HAS) -> Tcp:
        started.append(Tcp(context, image))
        return started[-1]

    yield start
    for one in started:
        one.server.shutdown()
        one.server.server_close()
