"""What the tests share: a layers directory, the stand-in, engines and registries, and the shim as a process."""

from __future__ import annotations

import json
import os
import pathlib
import re
import signal
import subprocess
import sys
import tempfile
import tomllib
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

import hypothesis
import jsonschema
import pytest

from shim.demo import layout, servers
from tests import real

# Whoever runs the tests in the background may have these ignored, and the phases would inherit it.
for _number in (signal.SIGHUP, signal.SIGINT, signal.SIGQUIT):
    if signal.getsignal(_number) is signal.SIG_IGN:
        signal.signal(_number, signal.SIG_DFL)
# For mutation testing: that an example fails is enough, it needn't be made small.
hypothesis.settings.register_profile("first", phases=[hypothesis.Phase.explicit, hypothesis.Phase.generate])
SCHEMA = json.loads((pathlib.Path(__file__).parent.parent / "docs" / "reference" / "report.schema.json").read_text())
SHIM = (sys.executable, "-m", "shim")
GROUP = '[[group]]\n  id = "bp/a"\n  version = "0.1"\n  api = "0.9"\n'
EXTENSION = '\n[[group-extensions]]\n  id = "ext/a"\n  version = "0.1"\n  api = "0.9"\n'
ID = "c5eae3d06f9f2ad6587e814ebdc0e956538fb51d00df79916c59824fff32d0a6"


def analyzed_toml(reference: str, image: str | None = None, previous: str = "", extra: str = "") -> str:
    """Return an analyzed.toml as the detector leaves it."""
    name = f'  image = "{image}"\n' if image else ""
    return (
        f'[image]\n  reference = "{previous}"\n\n[metadata]\n  [metadata.config]\n    sha = ""\n'
        '  [metadata.launcher]\n    sha = ""\n  [metadata.process-types]\n    sha = ""\n'
        '  [metadata.run-image]\n    top-layer = ""\n    reference = ""\n\n'
        f'[run-image]\n  reference = "{reference}"\n{name}{extra}'
    )


class Layers:
    """A layers directory."""

    def __init__(self, path: pathlib.Path) -> None:
        path.mkdir(exist_ok=True)
        self.path = path
        self.toml = path / "analyzed.toml"
        self.group = path / "group.toml"
        self.note = path / "analyzed-shim.toml"

    def write(
        self, reference: str, image: str | None = None, previous: str = "", extra: str = "", extensions: bool = True
    ) -> None:
        self.toml.write_text(analyzed_toml(reference, image, previous, extra))
        self.group.write_text(GROUP + (EXTENSION if extensions else ""))

    @property
    def reference(self) -> str:
        value = tomllib.loads(self.toml.read_text())["run-image"]["reference"]
        assert isinstance(value, str)
        return value

    def identity(self) -> tuple[int, int, int, int, int, int]:
        """Return what changes with any write, replacement or change of owner or mode of analyzed.toml."""
        about = self.toml.stat()
        return about.st_ino, about.st_mtime_ns, about.st_size, about.st_mode, about.st_uid, about.st_gid

    def stray(self) -> set[str]:
        """Return what lies about beside the files of the lifecycle and the note."""
        known = {"analyzed.toml", "group.toml", "analyzed-shim.toml"}
        return {entry.name for entry in self.path.iterdir()} - known


class Ran:
    """How a run of the shim ended."""

    def __init__(self, process: subprocess.CompletedProcess[str], report: pathlib.Path) -> None:
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr
        self.report: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
        if self.report:
            jsonschema.validate(self.report, SCHEMA)

    @property
    def outcome(self) -> str:
        return str(self.report.get("outcome"))


class Shim:
    """Runs the shim as a user does: as a process."""

    def __init__(self, directory: pathlib.Path, lifecycle: pathlib.Path, layers: Layers) -> None:
        self.directory = directory
        self.lifecycle = lifecycle
        self.layers = layers
        self.env = {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("CNB_", "ANALYZED_SHIM_", "DOCKER_", "STANDIN_"))
            },
            "CNB_PLATFORM_API": "0.11",
            "CNB_LAYERS_DIR": str(layers.path),
            "DOCKER_HOST": f"unix://{directory}/no-such.sock",
            "HOME": str(directory),
        }

    def unmeasured(self) -> None:
        """Run without measuring coverage, which imports a lot and writes files of its own."""
        for name in [name for name in self.env if name.startswith("COV")]:
            del self.env[name]

    def run(self, phase: str | pathlib.Path, *arguments: str, options: Any = (), **environ: str) -> Ran:
        """Wrap a phase of the stand-in, or whatever is at a path."""
        path = self.lifecycle / phase
        return self.call(*SHIM, "run", *options, "--", str(path), *arguments, **environ)

    def call(self, *command: str, **environ: str) -> Ran:
        report = self.directory / "report.json"
        report.unlink(missing_ok=True)
        env = {"ANALYZED_SHIM_REPORT": str(report), **self.env, **environ}
        process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in process.stderr, process.stderr
        return Ran(process, report)


def on_a_terminal(command: Sequence[str], environ: dict[str, str]) -> tuple[int, bytes]:
    """Run a command on a terminal of its own, and return its exit status and what it showed."""
    ours, its = os.openpty()
    process = subprocess.Popen(command, env=environ, stdin=its, stdout=its, stderr=its, start_new_session=True)
    os.close(its)
    seen = b""
    while True:
        try:
            seen += os.read(ours, 1000)
        except OSError:  # the other end is closed
            break
    os.close(ours)
    return process.wait(60), seen


@pytest.fixture(scope="session")
def lifecycle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The stand-in lifecycle."""
    directory = tmp_path_factory.mktemp("standin")
    for parent in (directory, *directory.parents[:3]):
        if parent.stat().st_uid == os.getuid() and parent != pathlib.Path(tempfile.gettempdir()):
            parent.chmod(0o755)
    return layout.lay_out(directory / "lifecycle")


@pytest.fixture(scope="session")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """A bundle, made by the one command."""
    target = tmp_path_factory.mktemp("bundle") / "bundle"
    subprocess.run(
        [sys.executable, "packaging/bundle.py", str(target)],
        cwd=pathlib.Path(__file__).parent.parent,
        check=True,
        capture_output=True,
    )
    return target


@pytest.fixture
def layers(tmp_path: pathlib.Path) -> Layers:
    return Layers(tmp_path / "layers")


@pytest.fixture
def shim(tmp_path: pathlib.Path, lifecycle: pathlib.Path, layers: Layers) -> Shim:
    return Shim(tmp_path, lifecycle, layers)


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


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Have all tests of an engine run in one process under `-n 2`: each process would start an engine of its own."""
    from xdist.scheduler import LoadScopeScheduling

    class ByEngine(LoadScopeScheduling):  # type: ignore[misc]  # which has no types
        def _split_scope(self, nodeid: str) -> str:
            kind = re.search(rf"[\[-]({'|'.join(real.ENGINES)})[-\]]", nodeid)
            return kind[1] if kind else nodeid

    return ByEngine(config, log)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark the tests that need a real engine: `-m "not real"` leaves them out."""
    for item in items:
        if "real_engine" in getattr(item, "fixturenames", ()):
            item.add_marker("real")


def leave_out(reason: str) -> NoReturn:
    """Leave a test out, and under CI make that an error."""
    if os.environ.get("CI"):
        raise RuntimeError(f"under CI this is required: {reason}")
    pytest.skip(reason)


def leave_out_without(*parts: str) -> None:
    """Leave a test out where real parts can't be had."""
    absent = [program for part in parts for program in real.missing(part)]
    reason = f"not installed: {', '.join(absent)}" if absent else "an engine needs root" if os.getuid() else ""
    if reason:
        leave_out(reason)


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
