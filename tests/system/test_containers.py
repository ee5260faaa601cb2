"""The bundle where the phases really run: containers without Python, without a libc, as root, as a user, as process 1.

A Debian root made with mmdebstrap, without Python, stands in for a builder; a root with nothing but /etc/passwd, /tmp
and the lifecycle directory for pack's lifecycle image. In both the phases are small static programs and the stand-in
restorer's part is played by a static binary that says how it was called.
"""

from __future__ import annotations

import functools
import io
import json
import os
import pathlib
import shutil
import subprocess
import tarfile
import tempfile
from typing import Any

import docker
import pytest
import trustme

from shim.demo import images
from shim.demo.lifecycle import ARCHITECTURE
from shim.errors import ShimError
from shim.phase.invocation import WRAPPED
from shim.tools import install as bundling
from shim.tools import inventory, pack
from tests.support import real
from tests.support.build import SHIM, Build, Ran
from tests.support.certificates import certificates, serving
from tests.support.daemons import Tcp
from tests.support.ground import CASES, NIGHTLY, SWITCHED, Ground
from tests.support.images import BUILDER
from tests.support.layers import EXTENSION, GROUP, ID, Layers, analyzed_toml
from tests.support.needs import leave_out
from tests.support.processes import program, wait_for

ROOTS = ("distroless", "debian")
ENGINES = ("docker",)
"""Of the engines; the platform that starts the containers is one and the same for all of this."""

needs_root = pytest.mark.skipif(os.getuid() != 0, reason="makes roots and containers, which needs root")

PHASE = r"""
#include <fcntl.h>
#include <libgen.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
/* A phase that says how it was called. PHASE_EXIT is its status; PHASE_WAIT has it wait for a signal. */
static void tell(int number) { printf("signal %d\n", number); fflush(stdout); if (number == SIGTERM) exit(7); }
int main(int argc, char **argv) {
  const char *layers = getenv("CNB_LAYERS_DIR"), *group = 0, *status = getenv("PHASE_EXIT");
  char path[4096], buffer[8192];
  printf("%s pid %d uid %d\n", basename(strdup(argv[0])), getpid(), getuid());
  for (int at = 1; at < argc; at++) if (!strncmp(argv[at], "-group=", 7)) group = argv[at] + 7;
  snprintf(path, sizeof path, "%s/group.toml", layers ? layers : "/layers");
  FILE *file = fopen(group ? group : path, "r");
  size_t length = file ? fread(buffer, 1, sizeof buffer - 1, file) : 0;
  buffer[length] = 0;
  printf("group %s, extensions %s\n", file ? "read" : "not read", strstr(buffer, "group-extensions") ? "yes" : "no");
  fflush(stdout);
  if (getenv("PHASE_WAIT")) {
    for (int number = 1; number < 16; number++) signal(number, tell);
    if (fork() == 0) { if (fork() == 0) { usleep(200000); _exit(3); } _exit(0); }
    for (;;) pause();
  }
  return status ? atoi(status) : 0;
}
"""


@pytest.fixture
def lifecycle_directory(tmp_path: pathlib.Path) -> pathlib.Path:
    """A lifecycle directory as published: one program, and links."""
    if shutil.which("gcc") is None:
        leave_out("not installed: gcc")
    place = tmp_path / "cnb" / "lifecycle"
    place.mkdir(parents=True)
    source = tmp_path / "phase.c"
    source.write_text(PHASE)
    subprocess.run(["gcc", "-static", "-O1", "-w", "-o", place / "lifecycle", source], check=True)
    for phase in (*WRAPPED, "detector", "builder", "creator"):
        (place / phase).symlink_to("lifecycle")
    (place / "launcher").write_text("launcher")
    return place


def listing(place: pathlib.Path) -> list[tuple[str, int, str]]:
    return sorted(
        (str(path.relative_to(place)), path.lstat().st_mode, os.readlink(path) if path.is_symlink() else "")
        for path in place.rglob("*")
    )


def test_a_bundle_weighs_what_it_may(bundle: pathlib.Path) -> None:
    assert sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) < 16e6
    assert sum(path.is_file() for path in bundle.rglob("*")) <= 150
    assert {path.name for path in (bundle / "site-packages").iterdir()} == {"shim"}
    assert not list(bundle.rglob("*.py"))


def test_installing_twice_is_installing_once_and_uninstalling_leaves_it_as_it_was(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path, build: Build
) -> None:
    place = lifecycle_directory
    before = listing(place)
    build.call(*SHIM, "install", str(place), "--bundle", str(bundle)).expect(code=0)
    installed = listing(place)
    for phase in WRAPPED:
        assert os.readlink(place / f"{phase}.real") == "lifecycle"
        assert (place / phase).is_file()
        assert not (place / phase).is_symlink()
    build.call(*SHIM, "install", str(place), "--bundle", str(bundle)).expect(code=0)
    assert listing(place) == installed
    assert {path.name for path in place.iterdir()} == {*(name for name, _, _ in before), bundling.NAME} | {
        f"{phase}.real" for phase in WRAPPED
    }
    build.call(*SHIM, "uninstall", str(place)).expect(code=0)
    assert listing(place) == before
    build.call(*SHIM, "uninstall", str(place)).expect(code=0)
    assert listing(place) == before


def test_a_phase_that_is_a_file_of_its_own_keeps_its_inode(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path
) -> None:
    place = lifecycle_directory
    (place / "restorer").unlink()
    shutil.copy(place / "lifecycle", place / "restorer")
    inode = (place / "restorer").stat().st_ino
    bundling.install(str(place), str(bundle))
    assert (place / "restorer.real").stat().st_ino == inode
    bundling.uninstall(str(place))
    assert (place / "restorer").stat().st_ino == inode


@pytest.mark.parametrize("left", ["nothing", "half a bundle", "one phase", "a kept phase"])
def test_a_kill_in_between_leaves_what_the_next_run_mends(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path, left: str
) -> None:
    place = lifecycle_directory
    before = listing(place)
    if left == "half a bundle":
        (place / f".{bundling.NAME}.new" / "bin").mkdir(parents=True)
        (place / f".{bundling.NAME}.old").mkdir()
    elif left != "nothing":
        bundling.install(str(place), str(bundle))
        os.replace(place / "analyzer.real", place / "analyzer")
        if left == "a kept phase":
            (place / ".analyzer.keep").symlink_to("lifecycle")
            (place / ".restorer.shim").write_text("half")
    bundling.install(str(place), str(bundle))
    ended = subprocess.run([place / "analyzer", "-version"], env={"CNB_PLATFORM_API": "0.11"}, check=False)
    assert ended.returncode == 0
    bundling.uninstall(str(place))
    assert listing(place) == before


def test_a_lifecycle_that_was_copied_over_an_installed_one_is_wrapped_anew(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path
) -> None:
    place = lifecycle_directory
    bundling.install(str(place), str(bundle))
    (place / "restorer").unlink()
    (place / "restorer").write_text("#!/bin/sh\necho newer\n")
    (place / "restorer").chmod(0o755)
    bundling.install(str(place), str(bundle))
    assert (place / "restorer.real").read_text() == "#!/bin/sh\necho newer\n"


def test_what_is_no_lifecycle_no_bundle_or_too_long_is_refused(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path, build: Build, tmp_path: pathlib.Path
) -> None:
    for directory, given, at, message in (
        (tmp_path, bundle, None, "is not a lifecycle directory: analyzer, restorer, exporter not found"),
        (lifecycle_directory, tmp_path, None, "is not a bundle"),
        (lifecycle_directory, bundle, "/x" * 120, "too long a path"),
        (lifecycle_directory, bundle, "/a b", "has a blank"),
    ):
        with pytest.raises(ShimError, match=message):
            bundling.install(str(directory), str(given), at)
    with pytest.raises(ShimError, match="is not a lifecycle directory"):
        bundling.uninstall(str(tmp_path))
    assert not (lifecycle_directory / bundling.NAME).exists()
    (lifecycle_directory / "restorer").unlink()
    (lifecycle_directory / "restorer").mkdir()
    for command in (("install", "--bundle", str(bundle)), ("uninstall",)):
        ended = build.call(*SHIM, command[0], str(lifecycle_directory), *command[1:])
        assert (ended.code, "can't be changed" in ended.err) == (64, True)
        assert str(lifecycle_directory / "restorer") in ended.err


@pytest.mark.parametrize("kind", ["link", "link that leads nowhere", "copy"])
def test_a_phase_in_whose_place_the_shim_is_already_stays_where_it_was_kept(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path, build: Build, tmp_path: pathlib.Path, kind: str
) -> None:
    """As the README's loop puts it there."""
    place = lifecycle_directory
    before = listing(place)
    script = tmp_path / "bin" / "analyzed-shim"
    script.parent.mkdir()
    if kind != "link that leads nowhere":
        shutil.copy("packaging/analyzed-shim", script)
    for phase in WRAPPED:
        (place / phase).rename(place / f"{phase}.real")
        if kind == "copy":
            shutil.copy(script, place / phase)
        else:
            (place / phase).symlink_to(script)
    bundling.install(str(place), str(bundle))
    for phase in WRAPPED:
        assert os.readlink(place / f"{phase}.real") == "lifecycle"
    ended = subprocess.run([place / "restorer", "-version"], env={"CNB_PLATFORM_API": "0.11"}, check=False)
    assert ended.returncode == 0
    bundling.uninstall(str(place))
    assert listing(place) == before

    (place / "restorer").unlink()
    (place / "restorer").symlink_to(script)
    if kind != "link":
        return
    ended_ = build.call(*SHIM, "install", str(place), "--bundle", str(bundle))
    assert (ended_.code, "restorer.real beside it was not found" in ended_.err) == (64, True)
    assert not (place / bundling.NAME).exists()


def test_an_installed_bundle_knows_itself(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path, tmp_path: pathlib.Path, build: Build
) -> None:
    place = lifecycle_directory
    bundling.install(str(place), str(bundle))
    own = str(place / bundling.NAME / "bin" / "analyzed-shim")
    assert build.call(own, "--version").out.startswith("analyzed-shim 0.")
    build.call(own, "run", "--", "true").expect(code=0)
    for verb in ("snapshot", "fix", "check", "install", "uninstall", "builder", "demo", "bundle"):
        ended = build.call(own, verb)
        assert (ended.code, f"{verb} is not in the bundle" in ended.err) == (64, True)
        assert "pipx install analyzed-shim" in ended.err
    other = tmp_path / "other"
    shutil.copytree(place, other, symlinks=True)
    bundling.uninstall(str(place))
    with pytest.raises(FileNotFoundError):  # its interpreter's path is that of the other place
        build.call(str(other / bundling.NAME / "bin" / "analyzed-shim"), "--version")


def packed(bundle: pathlib.Path, target: pathlib.Path) -> pathlib.Path:
    """Lay out a bundle as a lifecycle image gets it."""
    shutil.copytree(bundle, target)
    files = {str(path.relative_to(bundle)): path.read_bytes() for path in bundle.rglob("*") if path.is_file()}
    kept = pack.packed(files)
    for name in files.keys() - kept.keys():
        (target / name).unlink()
    for name in kept:
        if kept[name] != files.get(name):
            (target / name).write_bytes(kept[name])
    return target


@pytest.mark.parametrize("packs", [False, True])
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_image_s_loader_and_python_settings_are_the_phase_s_only(
    bundle: pathlib.Path, tmp_path: pathlib.Path, layers: Layers, api: str, packs: bool
) -> None:
    if packs:
        bundle = packed(bundle, tmp_path / "packed")
        assert inventory.is_whole(bundle)
        assert sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) < 10e6
    bare, wrapped = tmp_path / "bare", tmp_path / "wrapped"
    for place in (bare, wrapped):
        place.mkdir()
        for phase in WRAPPED:
            program(place / phase, "#!/bin/sh\nls /proc/self/fd\nexec /usr/bin/env\n")
    bundling.install(str(wrapped), str(bundle))
    (tmp_path / "os.py").write_text("raise SystemExit('led astray')\n")
    layers.write(ID, None)  # no switch: the phase is execed with another group
    environ = {
        "PATH": os.environ["PATH"],
        "CNB_PLATFORM_API": api,
        "CNB_LAYERS_DIR": str(layers.path),
        "LD_PRELOAD": "/no/such.so",
        "LD_LIBRARY_PATH": str(tmp_path),
        "LD_AUDIT": "",
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": str(tmp_path),
        "LC_ALL": "C",
    }
    ends = [
        subprocess.run([place / "restorer"], env=environ, cwd=tmp_path, capture_output=True, text=True, check=False)
        for place in (bare, wrapped)
    ]
    assert [end.returncode for end in ends] == [0, 0], ends
    assert sorted(ends[0].stdout.splitlines()) == sorted(ends[1].stdout.splitlines())
    own = [line for line in ends[1].stderr.splitlines() if not line.startswith("ERROR: ld.so")]  # those of its env
    assert len(own) == (1 if api == "0.11" else 0)
    assert ends[0].stderr.splitlines() == [line for line in ends[1].stderr.splitlines() if line not in own]


def test_a_daemon_is_asked_by_tls(
    bundle: pathlib.Path, lifecycle_directory: pathlib.Path, layers: Layers, build: Build, tmp_path: pathlib.Path
) -> None:
    """OpenSSL lies compressed in the bundle, and nothing can be written where it is installed."""
    bundling.install(str(lifecycle_directory), str(bundle))
    name, authority = "registry.example/run:1.0", trustme.CA()
    mine = certificates(tmp_path / "mine", authority)
    daemon = Tcp(serving(authority, "127.0.0.1", clients=authority))
    layers.write(name, name)
    try:
        ended = build.call(
            str(lifecycle_directory / "restorer"),
            DOCKER_HOST=daemon.url,
            DOCKER_CERT_PATH=mine,
            DOCKER_TLS_VERIFY="1",
            ANALYZED_SHIM_DAEMON="true",
            ANALYZED_SHIM_REPORT=str(tmp_path / "tls.json"),
            TMPDIR="/no/such",
        )
    finally:
        daemon.server.shutdown()
        daemon.server.server_close()
    ended.expect(code=0)
    report = json.loads((tmp_path / "tls.json").read_text())
    assert (report["outcome"], report["image_id"]) == ("prevented", ID)


# In containers.


class Box:
    """An image on the real daemon with the shim installed, and running its phases."""

    def __init__(self, client: docker.APIClient, image: str, directory: pathlib.Path) -> None:
        self.client = client
        self.image = image
        self.layers = directory / "box-layers"
        self.layers.mkdir()

    def lay(self, reference: str, image: str | None, owner: int = 1000) -> None:
        (self.layers / "analyzed.toml").write_text(analyzed_toml(reference, image))
        (self.layers / "group.toml").write_text(GROUP + EXTENSION)
        for path in (self.layers, *self.layers.iterdir()):
            os.chown(path, owner, owner)

    def start(self, phase: str, *arguments: str, socket: str | None, user: str, tty: bool, **environ: str) -> str:
        binds = [f"{self.layers}:/layers"] + ([f"{socket}:/var/run/docker.sock"] if socket else [])
        host = self.client.create_host_config(binds=binds, network_mode="host", read_only=True)
        made = self.client.create_container(
            self.image,
            [f"/cnb/lifecycle/{phase}", *arguments],
            user=user,
            tty=tty,
            environment={"CNB_PLATFORM_API": "0.11", "ANALYZED_SHIM_REPORT": "/layers/report.json", **environ},
            host_config=host,
        )
        self.client.start(made["Id"])
        return str(made["Id"])

    def run(
        self, phase: str, *arguments: str, socket: str | None = None, user: str = "0", tty: bool = False, **environ: str
    ) -> Ran:
        container = self.start(phase, *arguments, socket=socket, user=user, tty=tty, **environ)
        try:
            code = self.client.wait(container)["StatusCode"]
            out, err = (self.client.logs(container, stdout=out, stderr=not out).decode() for out in (True, False))
            ended = subprocess.CompletedProcess([], code, out, err)
            return Ran(ended, self.layers / "report.json")
        finally:
            self.client.remove_container(container, force=True)

    @property
    def reference(self) -> str:
        text = (self.layers / "analyzed.toml").read_text()
        return text.rpartition('[run-image]\n  reference = "')[2].partition('"')[0]


def distroless(lifecycle: pathlib.Path) -> bytes:
    """A root with nothing but /etc/passwd, /tmp, /layers and the lifecycle directory."""
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as archive:
        for name, mode in (("etc", 0o755), ("tmp", 0o1777), ("layers", 0o755), ("cnb", 0o755)):
            entry = tarfile.TarInfo(name)
            entry.type, entry.mode = tarfile.DIRTYPE, mode
            archive.addfile(entry)
        passwd = b"root:x:0:0::/:/none\ncnb:x:1000:1000::/:/none\n"
        entry = tarfile.TarInfo("etc/passwd")
        entry.size = len(passwd)
        archive.addfile(entry, io.BytesIO(passwd))
        archive.add(lifecycle, "cnb/lifecycle")
    return out.getvalue()


@functools.cache
def debian_root() -> bytes:
    """A Debian root without Python."""
    if shutil.which("mmdebstrap") is None:
        leave_out("not installed: mmdebstrap")
    with tempfile.TemporaryDirectory() as directory:
        archive = pathlib.Path(directory) / "debian.tar"
        command = ["mmdebstrap", "--quiet", "--variant=essential", "bookworm", str(archive)]
        subprocess.run(command, check=True, capture_output=True)
        return archive.read_bytes()


def debian(lifecycle: pathlib.Path) -> bytes:
    """A Debian root without Python, and the lifecycle directory."""
    out = io.BytesIO(debian_root())
    with tarfile.open(fileobj=out, mode="a") as more:
        more.add(lifecycle, "cnb/lifecycle")
    return out.getvalue()


@pytest.fixture(params=ROOTS)
def box(
    request: pytest.FixtureRequest,
    real_parts: tuple[real.Engine, real.Registry],
    bundle: pathlib.Path,
    lifecycle_directory: pathlib.Path,
    tmp_path: pathlib.Path,
    build: Build,
    roots: set[tuple[str, str]],
) -> Box:
    """Both kinds of image, derived by the command."""
    engine, _ = real_parts
    image = f"box/{request.param}"
    if (engine.kind, image) not in roots:
        derive(engine, build, image, lifecycle_directory, tmp_path, bundle, "--env", "ANALYZED_SHIM_TIMEOUT=3")
        roots.add((engine.kind, image))
    return Box(engine.client, f"{image}:shim", tmp_path)


def derive(
    engine: real.Engine,
    build: Build,
    image: str,
    lifecycle: pathlib.Path,
    directory: pathlib.Path,
    bundle: pathlib.Path,
    *options: str,
) -> None:
    """Make an image of a root of the kind that its name says, and derive one from it by the command.

    The one with nothing else is a lifecycle image, and gets the bundle packed; the other is a builder.
    """
    is_builder = "debian" in image
    root = debian(lifecycle) if is_builder else distroless(lifecycle)
    label = [f"LABEL {name}={json.dumps(value)}" for name, value in BUILDER.items() if is_builder]
    engine.client.import_image_from_data(root, repository=image, tag="bare", changes=["USER 1000", *label])
    command = [*SHIM, "builder", f"{image}:bare", "--tag", f"{image}:shim", "--bundle", str(bundle), *options]
    build.call(*command, DOCKER_HOST=engine.url).expect(code=0)


@pytest.fixture(scope="session")
def roots() -> set[tuple[str, str]]:
    """The images that were derived already, and the kind of engine that has them."""
    return set()


@needs_root
def test_a_derived_image_is_configured_as_the_one_it_is_of_and_deriving_again_gives_the_same(
    box: Box, build: Build, bundle: pathlib.Path, real_parts: tuple[real.Engine, real.Registry]
) -> None:
    engine, registry = real_parts
    bare, derived = (
        engine.client.inspect_image(f"{box.image.partition(':')[0]}:{tag}")  # type: ignore[no-untyped-call]
        for tag in ("bare", "shim")
    )
    for field in ("User", "Labels", "WorkingDir", "Entrypoint", "Volumes"):
        assert (derived["Config"].get(field) or None) == (bare["Config"].get(field) or None)
    assert "ANALYZED_SHIM_TIMEOUT=3" in derived["Config"]["Env"]
    assert derived["RootFS"]["Layers"][:-1] == bare["RootFS"]["Layers"]
    again = f"{registry.host}/box/again:1"
    options = ["--bundle", str(bundle), "--push"]
    build.call(*SHIM, "builder", box.image, "--tag", again, *options, DOCKER_HOST=engine.url).expect(code=0)
    assert names_in_top_layer(engine, again) == names_in_top_layer(engine, box.image)
    names = names_in_top_layer(engine, again)
    assert {"cnb/lifecycle/lifecycle", "cnb/lifecycle/launcher", "cnb/lifecycle/restorer.real"} <= names
    engine.client.remove_image(again)
    engine.pull(again)  # it was pushed
    engine.client.remove_image(again)
    printed = build.call(*SHIM, "builder", "no/such:image", "--tag", "x", *options, "--print", DOCKER_HOST="")
    assert printed.code == 0
    assert "load it as x" in printed.out
    without = registry.push("box/without:1", images.single("without", ARCHITECTURE))
    for command, message in (
        (["no/such:image"], "pull"),
        ([box.image, "--env", "PATH=x"], "PATH is not a setting"),
        ([box.image, "--env", "ANALYZED_SHIM_PULLPOLICY=never"], "ANALYZED_SHIM_PULL_POLICY,"),
        ([box.image, "--env", "ANALYZED_SHIM_PULL_POLICY=newer"], "it takes never, if-not-present, always"),
        ([box.image, "--env", "ANALYZED_SHIM_STRICT"], "--env ANALYZED_SHIM_STRICT has no value"),
        ([without], f"{without} has no lifecycle in /cnb/lifecycle"),
    ):
        failed = build.call(*SHIM, "builder", *command, "--tag", "x", *options, DOCKER_HOST=engine.url)
        assert (failed.code != 0, message in failed.err) == (True, True), failed.err
        assert "analyzed-shim: ERROR" in failed.err
    engine.client.remove_image(without)
    assert engine.client.containers(all=True) == []


def names_in_top_layer(engine: real.Engine, image: str) -> set[str]:
    with tarfile.open(fileobj=io.BytesIO(b"".join(engine.client.get_image(image)))) as archive:
        manifest = json.loads((archive.extractfile("manifest.json") or io.BytesIO()).read())
        top = archive.extractfile(manifest[0]["Layers"][-1])
        assert top is not None
        with tarfile.open(fileobj=top) as layer:
            return {member.name.rstrip("/") for member in layer.getmembers()}


@needs_root
@pytest.mark.parametrize("tty", [False, True])
def test_as_process_1_without_python_libc_shell_or_a_writable_root(box: Box, tty: bool) -> None:
    box.lay(ID, None)
    ended = box.run("restorer", "-skip-layers", tty=tty, PHASE_EXIT="5")
    ended.expect(code=5, outcome="no-lookup")
    assert ended.out.replace("\r", "").split("\n")[-3:-1] == ["restorer pid 1 uid 0", "group read, extensions no"]


@needs_root
@pytest.mark.parametrize("user", ["0", "1000"])
def test_the_analyzer_s_note_is_the_restorer_s_evidence(box: Box, user: str) -> None:
    box.lay("r:1", "r:1")
    box.run("analyzer", "-daemon", "app", user=user, CNB_USER_ID="1000", CNB_GROUP_ID="1000").expect(
        code=0, outcome="noted"
    )
    ended = box.run("restorer", user=user)
    ended.expect(code=0, outcome="kept-name", evidence="note")
    assert "extensions no" in ended.out
    assert box.reference == "r:1"


@needs_root
def test_with_the_socket_the_id_is_written_and_without_a_right_to_it_the_name_kept(
    box: Box, real_parts: tuple[real.Engine, real.Registry]
) -> None:
    engine, _ = real_parts
    socket = engine.url.removeprefix("unix://")
    os.chmod(socket, 0o660)
    local = engine.id_of(box.image)
    for user, outcome, reference in (("0", "prevented", local), ("1000", "kept-name", box.image)):
        box.lay(box.image, box.image)
        environ: Any = {"ANALYZED_SHIM_DAEMON": "true", "CNB_USER_ID": "1000", "CNB_GROUP_ID": "1000"}
        box.run("restorer", socket=socket, user=user, **environ).expect(code=0, outcome=outcome)
        assert box.reference == reference
        assert (box.layers / "analyzed.toml").stat().st_uid == 1000
    box.lay(f"box@sha256:{ID}", box.image)
    ended = box.run("exporter", "-daemon", "app", socket=socket)
    assert (ended.code, ended.outcome, box.reference) == (0, "reverted", local)
    assert "exporter pid 1" in ended.out


@needs_root
def test_a_dead_socket_keeps_the_name_and_a_registry_build_is_left_alone(box: Box, tmp_path: pathlib.Path) -> None:
    import socket

    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(tmp_path / "dead.sock"))
    box.lay("r:1", "r:1")
    box.run("restorer", socket=str(tmp_path / "dead.sock"), ANALYZED_SHIM_DAEMON="true").expect(
        code=0, outcome="kept-name"
    )
    before = (box.layers / "analyzed.toml").read_bytes()
    ended = box.run("restorer", ANALYZED_SHIM_DAEMON="false")
    ended.expect(code=0, outcome="not-a-daemon-build")
    assert "extensions yes" in ended.out
    assert (box.layers / "analyzed.toml").read_bytes() == before


@needs_root
@pytest.mark.parametrize("tty", [False, True])
def test_as_process_1_signals_reach_the_phase_and_orphans_are_reaped(
    box: Box, tty: bool, real_parts: tuple[real.Engine, real.Registry]
) -> None:
    box.lay("r:1", "r:1")
    container = box.start("restorer", socket=None, user="0", tty=tty, PHASE_WAIT="1")
    try:
        for number, name in ((1, "SIGHUP"), (2, "SIGINT"), (12, "SIGUSR2"), (10, "SIGUSR1")):
            wait_for_log(box, container, "group read")
            box.client.kill(container, name)
            wait_for_log(box, container, f"signal {number}")
        ours = str(box.client.inspect_container(container)["State"]["Pid"])
        wait_for(lambda: len(children_of(ours)) == 1)  # the phase; its orphan ended, and is no zombie
        assert "pid 1 " not in box.client.logs(container).decode()
        box.client.kill(container, "SIGTERM")
        assert box.client.wait(container)["StatusCode"] == 7
    finally:
        box.client.remove_container(container, force=True)


def children_of(pid: str) -> list[str]:
    stats = (path.read_text().rpartition(")")[2].split() for path in pathlib.Path("/proc").glob("[0-9]*/stat"))
    return [state for state, parent, *_ in stats if parent == pid]


def wait_for_log(box: Box, container: str, text: str) -> None:
    wait_for(lambda: text in box.client.logs(container).decode())


# The table of run images, inside.


@pytest.fixture(params=ROOTS)
def standin_box(
    request: pytest.FixtureRequest,
    real_parts: tuple[real.Engine, real.Registry],
    bundle: pathlib.Path,
    whole_bundle: pathlib.Path,
    tmp_path: pathlib.Path,
    build: Build,
    roots: set[tuple[str, str]],
) -> Box:
    """Both kinds of image with the stand-in lifecycle, and an interpreter of its own beside it."""
    engine, _ = real_parts
    image = f"standin/{request.param}"
    if (engine.kind, image) not in roots:
        place = tmp_path / "standin" / "lifecycle"
        shutil.copytree(build.lifecycle, place, symlinks=True)
        shutil.copytree(whole_bundle, place / "standin")
        text = (place / "lifecycle").read_text().partition("\n")[2]
        (place / "lifecycle").write_text(f"#!/cnb/lifecycle/standin/bin/python3 -IS\n{text}")
        derive(engine, build, image, place, tmp_path, bundle)
        roots.add((engine.kind, image))
    return Box(engine.client, f"{image}:shim", tmp_path)


HOW = {
    "root with the socket": ("0", True),
    "root without the socket": ("0", False),
    "user 1000 with a socket that isn't its to open": ("1000", True),
}


@needs_root
@pytest.mark.parametrize(
    ("standin_box", "case"),
    [
        (root, case)
        for root in ROOTS
        for case in CASES
        if case != "absent" and (NIGHTLY or root == "distroless" or case == "multi")
    ],
    indirect=["standin_box"],
)
@pytest.mark.parametrize("how", HOW)
def test_the_table_of_run_images_inside(standin_box: Box, ground: Ground, case: str, how: str) -> None:
    box, (user, mounted) = standin_box, HOW[how]
    socket = ground.engine.url.removeprefix("unix://")
    os.chmod(socket, 0o660)
    name = ground.lay(case)
    base = f"{ground.registry.host}/run/base:1.0"
    app = f"{ground.registry.host}/app/inside:1"
    os.chown(box.layers, 1000, 1000)
    users: Any = {"CNB_USER_ID": "1000", "CNB_GROUP_ID": "1000"}
    switch: Any = {"STANDIN_SWITCH": name} if name else {"STANDIN_EXTENSION": "" if case == "no-extension" else "1"}
    for phase, arguments, runs_as, has_socket in (
        ("analyzer", ["-daemon", "-run-image", base, app], "0", True),
        ("detector", [], "1000", False),
        ("restorer", [], user, mounted),
        ("exporter", ["-daemon", app], "0", True),
    ):
        ended = box.run(phase, *arguments, socket=socket if has_socket else None, user=runs_as, **users, **switch)
        assert ended.code == 0, (phase, ended.err, ended.out)
        if phase == "restorer" and case in SWITCHED:
            ended.expect(outcome="prevented" if how == "root with the socket" else "kept-name")
    assert ground.engine.id_of(app) == ground.engine.id_of(name or base)
