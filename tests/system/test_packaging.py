"""How it is adopted: the distributions, the container image, and the action's shell parts."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tarfile
import zipfile

import pytest
import yaml

import shim as package
from shim.call import WRAPPED
from tests.support import real
from tests.support.build import Build, Ran
from tests.support.images import ETC, image, lifecycle, member
from tests.support.needs import package_index

ROOT = pathlib.Path(__file__).parents[2]
ENGINES = ("docker",)


def call(*command: object, cwd: pathlib.Path, **environ: str) -> Ran:
    """Run a command with a user's path and no checkout."""
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
def distributions(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    directory = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", str(directory)]
    subprocess.run(command, check=True, cwd=ROOT, capture_output=True)
    return directory


def test_the_twine_of_the_publishing_action_takes_the_distributions(distributions: pathlib.Path) -> None:
    """That of the pinned action, 1.14.2, is 7.0.0, as locked for the tests."""
    pinned = (ROOT / ".github" / "workflows" / "release.yml").read_text()
    assert re.search(r"pypa/gh-action-pypi-publish@[0-9a-f]{40} # v1\.14\.2\n", pinned)
    assert re.search(r"^twine==7\.0\.0 ", (ROOT / "dev.lock").read_text(), re.MULTILINE)
    files = [str(path) for path in distributions.iterdir()]
    assert len(files) == 2
    subprocess.run([sys.executable, "-m", "twine", "check", "--strict", *files], check=True, capture_output=True)


def test_the_distributions_hold_the_package_and_what_tests_it(distributions: pathlib.Path) -> None:
    (wheel,), (source,) = distributions.glob("*.whl"), distributions.glob("*.tar.gz")
    names = zipfile.ZipFile(wheel).namelist()
    assert {name.split("/")[0].partition("-")[0] for name in names} == {"shim", "analyzed_shim"}
    assert {"shim/py.typed", "shim/wrap.py"} < set(names)
    assert any(name.endswith("/scripts/analyzed-shim") for name in names)
    with tarfile.open(source) as archive:
        tops = {name.split("/")[1] for name in archive.getnames() if "/" in name}
    assert {"shim", "tests", "docs", "LICENSE", "README.md", "pyproject.toml"} <= tops


def files_of(engine: real.Engine, name: str) -> set[str]:
    """Return what an image has in its lifecycle directory."""
    container = engine.client.create_container(name, ["none"])["Id"]
    try:
        chunks, _ = engine.client.get_archive(container, "/cnb/lifecycle")
        path = pathlib.Path(os.environ.get("TMPDIR", "/tmp"), f"{container}.tar")
        path.write_bytes(b"".join(chunks))
        with tarfile.open(path) as archive:
            return {name.removeprefix("lifecycle/") for name in archive.getnames()}
    finally:
        path.unlink()
        engine.client.remove_container(container)


def test_the_container_image_copies_a_builder(
    real_parts: tuple[real.Engine, real.Registry], tmp_path: pathlib.Path
) -> None:
    engine, registry = real_parts
    subprocess.run([sys.executable, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv" / "bin" / "python"
    call(python, "-m", "pip", "install", "-q", f"{ROOT}[bundle]", cwd=tmp_path).expect(code=0)
    made = call(python, ROOT / "packaging" / "image.py", "analyzed-shim:test", cwd=tmp_path, DOCKER_HOST=engine.url)
    made.expect(code=0)

    def run(*command: str) -> tuple[int, str]:
        socket = engine.url.removeprefix("unix://")
        host = engine.client.create_host_config(binds=[f"{socket}:/var/run/docker.sock"], network_mode="host")
        container = engine.client.create_container("analyzed-shim:test", list(command), host_config=host)["Id"]
        try:
            engine.client.start(container)
            code = int(engine.client.wait(container)["StatusCode"])
            return code, engine.client.logs(container).decode()
        finally:
            engine.client.remove_container(container, force=True)

    assert run("--version") == (0, f"analyzed-shim {package.__version__}\n")
    name = registry.push("image/builder:1", image([member(*ETC)], lifecycle()))
    tag = f"{registry.host}/image/derived:1"
    code, said = run("builder", name, "--tag", tag, "--push")
    assert (code, f"{registry.host}/image/derived@sha256:" in said) == (0, True), said
    assert {f"{phase}.real" for phase in WRAPPED} <= files_of(engine, tag)
    code, said = run("check", "--image", tag)
    assert (code, "drop-ins: analyzer, restorer, exporter" in said) == (0, True), said


def steps_of_action(inputs: dict[str, str]) -> list[tuple[str, dict[str, str]]]:
    """Return the shell parts of the action, each with its variables, for these inputs."""
    action = yaml.safe_load((ROOT / "action.yml").read_text())
    values = {name: str(declared["default"]) for name, declared in action["inputs"].items()} | inputs
    assert set(values) == set(action["inputs"])
    steps = []
    for step in action["runs"]["steps"]:
        assert step["shell"] == "bash"
        assert step.get("if", "inputs.image != ''") == "inputs.image != ''"
        if "if" not in step or values["image"]:
            given = {name: text.strip("${ }").removeprefix("inputs.") for name, text in step.get("env", {}).items()}
            steps.append((step["run"], {name: values[text] for name, text in given.items()}))
    return steps


def run_action(engine: real.Engine, directory: pathlib.Path, inputs: dict[str, str]) -> Ran:
    """Run the action's shell parts, up to the first that fails, and return how that ended."""
    given = {"RUNNER_TEMP": str(directory), "GITHUB_ACTION_PATH": str(ROOT), "GITHUB_PATH": str(directory / "path")}
    given |= {"GITHUB_OUTPUT": str(directory / "output"), "DOCKER_HOST": engine.url}
    for text, environ in steps_of_action(inputs):
        script = directory / "step.sh"
        script.write_text(text)
        ended = call("bash", "--noprofile", "--norc", "-eo", "pipefail", script, cwd=directory, **given, **environ)
        if ended.code:
            break
    return ended


def test_the_action_copies_an_image_and_its_output_is_the_digest(
    real_parts: tuple[real.Engine, real.Registry], tmp_path: pathlib.Path, build: Build
) -> None:
    engine, registry = real_parts
    name = registry.push("action/builder:1", image([member(*ETC)], lifecycle()))
    tag = f"{registry.host}/action/derived:1"
    run_action(engine, tmp_path, {"image": name, "tag": tag}).expect(code=0)
    (first,) = (tmp_path / "path").read_text().splitlines()
    assert os.listdir(first) == ["analyzed-shim"]
    call("analyzed-shim", "--version", cwd=tmp_path, PATH=first).expect(out=f"analyzed-shim {package.__version__}\n")
    (output,) = (tmp_path / "output").read_text().splitlines()
    assert re.fullmatch(rf"image={registry.host}/action/derived@sha256:[0-9a-f]{{64}}", output)
    engine.client.remove_image(tag)
    engine.pull(output.removeprefix("image="))  # it was pushed


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ({"push": "yes"}, "push must be true or false"),
        ({"image": "a"}, "image needs a tag"),
        ({"tag": "a"}, "tag needs an image"),
    ],
)
def test_the_action_checks_its_inputs(
    real_parts: tuple[real.Engine, real.Registry], tmp_path: pathlib.Path, inputs: dict[str, str], words: str
) -> None:
    ended = run_action(real_parts[0], tmp_path, inputs).expect(code=64)
    assert words in ended.out
