"""The command line: help, versions, wrong use, and output that nobody reads."""

from __future__ import annotations

import pathlib
import subprocess
import sys

import pytest

from shim import __version__
from tests.support.build import SHIM, Build
from tests.support.layers import Layers

COMMANDS = ("run", "snapshot", "fix", "check", "install", "uninstall", "builder", "demo")


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("option", ["-h", "--help"])
def test_each_command_has_help_of_80_columns_with_an_example(build: Build, command: str, option: str) -> None:
    for encoding in ("utf-8", "ascii"):
        ended = build.call(*SHIM, command, option, COLUMNS="80", PYTHONIOENCODING=encoding)
        ended.expect(code=0, err="")
        assert f"Example: analyzed-shim {command}" in ended.out
        assert max(map(len, ended.out.splitlines())) <= 80


def test_without_a_command_there_is_help_and_a_version(build: Build) -> None:
    assert all(f"  {command} " in build.call(*SHIM).expect(code=0, err="").out for command in COMMANDS)
    build.call(*SHIM, "--version").expect(code=0, out=f"analyzed-shim {__version__}\n")


@pytest.mark.parametrize(
    "words",
    [
        *(["fox"], ["fix", "--bogus"], ["fix", "--timeout", "5s"], ["fix", "--timeout"], ["install"], ["builder", "x"]),
        *(["check", "--layers"], ["--daemon", "run", "--", "x"], ["snapshot", "more"], ["fix", "--timeout", "nan"]),
    ],
)
def test_wrong_use_is_64_and_one_line(build: Build, layers: Layers, words: list[str]) -> None:
    layers.write("r:1", "r:1")
    ended = build.call(*SHIM, *words)
    ended.expect(code=64, out="")
    assert ended.err.startswith("analyzed-shim: ")
    assert ended.err.count("\n") == 1


@pytest.mark.parametrize("value", ["yes", "2", "maybe"])
def test_a_variable_that_run_refuses_the_others_refuse_too(build: Build, layers: Layers, value: str) -> None:
    layers.write("r:1", "r:1")
    ended = build.call(*SHIM, "fix", ANALYZED_SHIM_DAEMON=value)
    ended.expect(code=64)
    assert "ANALYZED_SHIM_DAEMON" in ended.err


@pytest.mark.parametrize("words", [["check"], ["check", "--help"], ["--version"]])
def test_output_that_can_t_be_written_is_a_line_and_a_reader_that_left_is_none(
    build: Build, layers: Layers, words: list[str]
) -> None:
    layers.write("r:1", "r:1")
    with pathlib.Path("/dev/full").open("w") as full:
        ended = subprocess.run([*SHIM, *words], env=build.env, stdout=full, stderr=subprocess.PIPE, text=True)
    assert (ended.returncode, ended.stderr.count("\n")) == (1, 1), ended.stderr
    assert "No space left" in ended.stderr
    process = subprocess.Popen([*SHIM, *words], env=build.env, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    process.stdout.close()
    assert process.communicate()[1] == b""


def test_a_name_in_any_encoding_is_printed(build: Build, layers: Layers) -> None:
    layers.write("r:1", "r:1", extra='  x = "\u00e9"\n')
    ended = build.call(*SHIM, "check", "--lifecycle", "/\u00e9", PYTHONIOENCODING="ascii").expect(code=0, err="")
    assert "/\\xe9 not found" in ended.out


def test_the_module_and_the_script_are_the_same(build: Build) -> None:
    script = pathlib.Path(sys.executable).parent / "analyzed-shim"
    build.call(str(script), "--version").expect(code=0, out=f"analyzed-shim {__version__}\n")
