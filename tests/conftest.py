"""What the tests share: a layers directory, the stand-in, engines and registries, and the shim as a process."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import tempfile
from collections.abc import Iterator
from typing import Any

import hypothesis
import pytest

from shim.demo import layout, servers
from tests.support import real
from tests.support.build import Build
from tests.support.layers import Layers
from tests.support.needs import leave_out_without
from tests.support.parts import Parts

# Whoever runs the tests in the background may have these ignored, and the phases would inherit it.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)
# For mutation testing: that an example fails is enough, it needn't be made small.
hypothesis.settings.register_profile("first", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])


@pytest.fixture(scope="session")
def lifecycle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The stand-in lifecycle."""
    directory = tmp_path_factory.mktemp("standin")
    for parent in (directory, *directory.parents[:3]):
        if parent.stat().st_uid == os.getuid() and parent != pathlib.Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    laid = layout.lay_out(directory / "lifecycle")
    program = laid / "lifecycle"
    program.write_text(program.read_text().replace("\n", " -S\n", 1))  # without what would begin to measure coverage
    return laid


@pytest.fixture
def layers(tmp_path: pathlib.Path) -> Layers:
    return Layers(tmp_path / "layers")


@pytest.fixture
def build(tmp_path: pathlib.Path, lifecycle: pathlib.Path, layers: Layers) -> Build:
    return Build(tmp_path, lifecycle, layers)


@pytest.fixture
def engine(tmp_path: pathlib.Path) -> Iterator[servers.Engine]:
    """The embedded engine: HTTP on a real Unix socket."""
    server = servers.Engine(str(tmp_path / "engine.sock"))
    yield server
    server.stop()


@pytest.fixture
def registry() -> Iterator[servers.Registry]:
    """The embedded registry: HTTP on 127.0.0.1."""
    server = servers.Registry()
    yield server
    server.stop()


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Have every test of a real engine run on each kind, but where it or its module says on which."""
    if "real_engine" in metafunc.fixturenames:
        marked = metafunc.definition.get_closest_marker("engines")
        kinds = marked.args if marked else getattr(metafunc.module, "ENGINES", real.ENGINES)
        metafunc.parametrize("real_engine", kinds, indirect=True, scope="session")


def pytest_make_parametrize_id(val: object) -> str | None:
    """Have a case's name say its words and variables, and not where in a list it stands."""
    if isinstance(val, dict):
        words = [f"{name}={value}" for name, value in val.items()]
    elif isinstance(val, (tuple, list)):
        words = [str(word) for word in val]
    elif isinstance(val, bytes):
        words = [repr(val)[2:-1]]
    else:
        return None
    name = " ".join(words)
    return (name if len(name) <= 60 else f"{name[:59]}…") or "none"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have all tests of an engine run in one process under `-n 2`: each process would start an engine of its own."""
    from xdist.scheduler import LoadScopeScheduling

    class ByEngine(LoadScopeScheduling):  # type: ignore[misc]  # which has no types
        def _split_scope(self, nodeid: str) -> str:
            kind = re.search(rf"[\[-]({'|'.join(real.ENGINES)})[-\]]", nodeid)
            # The pages and the packages take as long as the rest of Docker's, and get a daemon of their own.
            return f"{kind[1]} {'test_pa' in nodeid}" if kind else nodeid

    config.option.loadscopereorder = False  # by what they take, below, and not by how many they are
    return ByEngine(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a real engine: `-m "not real"` leaves them out. They begin, as they take the longest."""
    for item in items:
        if "real_engine" in getattr(item, "fixturenames", ()):
            item.add_marker("real")
    items.sort(key=lambda item: (item.get_closest_marker("real") is None, "test_pa" not in item.nodeid))


@pytest.fixture(scope="session")
def real_registry(tmp_path_factory: pytest.TempPathFactory) -> Iterator[real.Registry]:
    """A real registry."""
    leave_out_without("registry")
    with real.registry(tmp_path_factory.mktemp("registry")) as the_registry:
        yield the_registry


@pytest.fixture(scope="session")
def real_engine(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory, real_registry: real.Registry
) -> Iterator[real.Engine]:
    """A real engine of the kind that is asked for."""
    leave_out_without(request.param)
    with real.engine(request.param, tmp_path_factory.mktemp(request.param), real_registry.host) as the_engine:
        yield the_engine


@pytest.fixture(scope="session")
def real_parts(real_engine: real.Engine, real_registry: real.Registry) -> tuple[real.Engine, real.Registry]:
    """Both."""
    return real_engine, real_registry


@pytest.fixture
def parts(engine: servers.Engine, registry: servers.Registry) -> Parts:
    return Parts(engine, registry)
