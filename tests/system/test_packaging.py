"""How it is adopted: the wheel in an environment of its own, the container image, a Dockerfile's stage, the action."""

from __future__ import annotations

import io
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tarfile
from typing import Any

import pytest
import yaml

import shim as package
from shim.phase.invocation import WRAPPED
from shim.tools import archive, elf, install
from tests.support import real
from tests.support.build import Build, Ran
from tests.support.images import BUILDER, ETC, image, lifecycle, member
from tests.support.needs import leave_out, package_index

ROOT = pathlib.Path(__file__).parents[2]
ENGINES = ("docker",)


def call(*command: object, cwd: pathlib.Path, **environ: str) -> Ran:
    ended = subprocess.run(
        [str(word) for word in command],
        env={"PATH": "/usr/local/bin:/usr/bin:/bin", "HOME": str(cwd), **package_index(), **environ},
        cwd=cwd,
        capture_output=True,
        text=True,
        check=False,
    )
    return Ran(ended, cwd / "no-report.json")


@pytest.fixture(scope="module")
def installed(wheel: pathlib.Path, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    """The command as an installer puts it there, in an environment of its own, without a checkout."""
    return install_into(tmp_path_factory.mktemp("installed"), f"{wheel}[bundle]")


def install_into(place: pathlib.Path, what: str) -> pathlib.Path:
    subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
    call(place / "bin" / "pip", "install", "-q", what, cwd=place).expect(code=0)
    return place / "bin" / "analyzed-shim"


def drop_ins(engine: real.Engine, name: str, directory: pathlib.Path) -> set[str]:
    """The phases that have a drop-in in an image."""
    path = directory / "image.tar"
    path.write_bytes(b"".join(engine.client.get_image(name)))
    nodes = archive.tree(archive.read(path), "cnb/lifecycle")
    return {phase for phase in WRAPPED if f"{phase}.real" in nodes and install.is_script(nodes[phase].content)}


def test_one_line_from_a_plain_machine(
    real_parts: tuple[real.Engine, real.Registry], installed: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    engine, registry = real_parts
    name = registry.push("plain/lifecycle:1", image([member(*ETC)], lifecycle()))
    tag = f"{registry.host}/plain/derived:1"
    command = (installed, "builder", name, "--tag", tag, "--push")
    ended = call(*command, cwd=tmp_path, DOCKER_HOST=engine.url)
    ended.expect(code=0)
    kept = list((tmp_path / ".cache" / "analyzed-shim").iterdir())
    assert len(kept) == 1
    assert re.fullmatch(rf"bundle-{re.escape(package.__version__)}-3\.\d+-\w+-[0-9a-f]{{12}}", kept[0].name)
    assert f"making the bundle {kept[0]}" in ended.err
    again = call(*command, cwd=tmp_path, DOCKER_HOST=engine.url)
    assert (again.code, "making the bundle" in again.err) == (0, False)
    again.expect(out=ended.out)
    (kept[0] / "lib" / "ld.so").write_bytes(b"damaged")
    mended = call(*command, cwd=tmp_path, DOCKER_HOST=engine.url)
    assert (mended.code, "making the bundle" in mended.err, mended.out) == (0, True, ended.out)
    engine.client.remove_image(tag)
    engine.pull(tag)
    assert drop_ins(engine, tag, tmp_path) == {*WRAPPED}


def test_without_the_extra_it_is_said_what_is_larger_for_it(
    real_parts: tuple[real.Engine, real.Registry], wheel: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    engine, registry = real_parts
    command = install_into(tmp_path / "installed", str(wheel))
    for kind, labels in (("lifecycle", {}), ("builder", BUILDER)):
        name = registry.push(f"unpacked/{kind}:1", image([member(*ETC)], lifecycle(), labels=labels))
        tag = f"{registry.host}/unpacked/{kind}:shim"
        ended = call(command, "builder", name, "--tag", tag, cwd=tmp_path, DOCKER_HOST=engine.url)
        assert (ended.code, "(lz4 packs it: analyzed-shim[bundle]," in ended.err) == (0, kind == "lifecycle"), ended.err
        assert drop_ins(engine, tag, tmp_path) == {*WRAPPED}


def test_a_cache_that_can_t_be_written_is_named(installed: pathlib.Path, tmp_path: pathlib.Path) -> None:
    (tmp_path / "file").write_text("")
    ended = call(installed, "install", tmp_path, cwd=tmp_path, XDG_CACHE_HOME=str(tmp_path / "file"))
    assert ended.code != 0
    assert f"can't write the cache {tmp_path}/file/analyzed-shim" in ended.err
    assert "pass --bundle, or set XDG_CACHE_HOME" in ended.err


def run_container(engine: real.Engine, name: str, *command: str) -> tuple[int, str]:
    socket = engine.url.removeprefix("unix://")
    host = engine.client.create_host_config(binds=[f"{socket}:/var/run/docker.sock"])
    made = engine.client.create_container(name, list(command), host_config=host)
    try:
        engine.client.start(made["Id"])
        code = int(engine.client.wait(made["Id"])["StatusCode"])
        return code, engine.client.logs(made["Id"]).decode()
    finally:
        engine.client.remove_container(made["Id"], force=True)


def test_the_container_image_derives_a_builder(
    real_parts: tuple[real.Engine, real.Registry], of_image: str, tmp_path: pathlib.Path
) -> None:
    engine, registry = real_parts
    assert run_container(engine, of_image, "--version") == (0, f"analyzed-shim {package.__version__}\n")
    name = registry.push("image/builder:1", image([member(*ETC)], lifecycle(), [member("etc/more", b"x")]))
    tag = f"{registry.host}/image/derived:1"
    code, said = run_container(engine, of_image, "builder", name, "--tag", tag, "--push")
    assert code == 0, said
    assert drop_ins(engine, tag, tmp_path) == {*WRAPPED}
    code, said = run_container(engine, of_image, "check", "--image", tag)
    assert (code, "drop-ins:       analyzer, restorer, exporter" in said) == (0, True), said
    code, said = run_container(engine, of_image, "demo")
    assert (code, "demo is not in this image" in said) == (64, True), said


def test_a_stage_of_a_dockerfile_installs_it(
    real_parts: tuple[real.Engine, real.Registry], of_image: str, tmp_path: pathlib.Path
) -> None:
    engine, registry = real_parts
    page = (ROOT / "docs" / "how-to" / "builder.md").read_text()
    (dockerfile,) = re.findall(r"```dockerfile\n(.*?)```", page, re.DOTALL)
    name = registry.push("stage/builder:1", image([member(*ETC)], lifecycle(), [member("etc/more", b"x")]))
    engine.pull(name)
    out = io.BytesIO()
    with tarfile.open(fileobj=out, mode="w") as context:
        text = dockerfile.encode()
        header = tarfile.TarInfo("Dockerfile")
        header.size = len(text)
        context.addfile(header, io.BytesIO(text))
    out.seek(0)
    steps: list[dict[str, Any]] = [
        *engine.client.build(
            fileobj=out,
            custom_context=True,
            tag="stage/derived:1",
            buildargs={"BUILDER": name, "SHIM": of_image},
            rm=True,
            decode=True,
        )
    ]
    assert not [step for step in steps if "error" in step], steps
    assert drop_ins(engine, "stage/derived:1", tmp_path) == {*WRAPPED}
    before, after = (engine.client.inspect_image(one)["Config"] for one in (name, "stage/derived:1"))  # type: ignore[no-untyped-call]
    assert (after["User"], after["Labels"]) == (before["User"], before["Labels"])
    assert set(after["Env"]) >= set(before["Env"])  # Docker's builder adds a PATH if there is none


def steps_of_action(inputs: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """The shell parts of the action, each with its variables, for these inputs."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    values = {name: str(declared["default"]) for name, declared in action["inputs"].items()} | inputs
    assert set(values) == set(action["inputs"])
    steps = []
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        if "if" in step:
            assert step["if"] == "inputs.image != ''"
            if not values["image"]:
                continue
        environ = {
            name: re.sub(r"\$\{\{ inputs\.(\S+) \}\}", lambda found: values[found[1]], text)
            for name, text in step.get("env", {}).items()
        }
        assert "${{" not in "".join(environ.values()) + step["run"]
        steps.append((step["run"], environ))
    return steps


@pytest.mark.parametrize("derives", [True, False], ids=["derives", "installs"])
def test_the_action_s_shell_parts(
    real_parts: tuple[real.Engine, real.Registry], tmp_path: pathlib.Path, derives: bool, build: Build
) -> None:
    engine, registry = real_parts
    name = registry.push("action/builder:1", image([member(*ETC)], lifecycle()))
    tag = f"{registry.host}/action/derived:{derives}"
    inputs = {"image": name, "tag": tag, "env": "ANALYZED_SHIM_TIMEOUT=3\nANALYZED_SHIM_REPORT=a b\n"}
    given = {
        "RUNNER_TEMP": str(tmp_path),
        "GITHUB_ACTION_PATH": str(ROOT),
        "GITHUB_PATH": str(tmp_path / "path"),
        "DOCKER_HOST": engine.url,
    }
    for text, environ in steps_of_action(inputs if derives else {}):
        script = tmp_path / "step.sh"
        script.write_text(text)
        call("bash", "--noprofile", "--norc", "-eo", "pipefail", script, cwd=tmp_path, **given, **environ).expect(
            code=0
        )
    (first,) = (tmp_path / "path").read_text().splitlines()
    assert os.listdir(first) == ["analyzed-shim"]
    version = call("analyzed-shim", "--version", cwd=tmp_path, PATH=first)
    assert version.out == f"analyzed-shim {package.__version__}\n"
    if derives:
        assert drop_ins(engine, tag, tmp_path) == {*WRAPPED}
        baked = engine.client.inspect_image(tag)["Config"]["Env"]  # type: ignore[no-untyped-call]
        assert {"ANALYZED_SHIM_TIMEOUT=3", "ANALYZED_SHIM_REPORT=a b"} <= set(baked)
        engine.client.remove_image(tag)
        engine.pull(tag)  # it was pushed
    else:
        assert engine.id_of(tag) is None


def test_the_start_programs_are_made_of_their_source(tmp_path: pathlib.Path) -> None:
    if shutil.which("gcc") is None:
        leave_out("not installed: gcc")
    subprocess.run([ROOT / "packaging" / "start.sh", tmp_path], check=True, capture_output=True)
    made = sorted(tmp_path.iterdir())
    assert made
    compiler = subprocess.run(["gcc", "--version"], check=True, capture_output=True, text=True).stdout
    for path in made:
        kept = ROOT / "shim" / "tools" / "start" / path.name
        if "12.2.0" in compiler:  # the one that made those
            assert path.read_bytes() == kept.read_bytes()
        assert (elf.read(kept).architecture, elf.read(kept).interpreter) == (elf.read(path).architecture, None)
