"""A build's phases with the shim, as processes, and how each ended."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jsonschema

from tests.support.layers import Layers
from tests.support.processes import program

SCHEMA = json.loads((pathlib.Path(__file__).parents[2] / "docs" / "reference" / "report.schema.json").read_text())
SHIM = (sys.executable, "-m", "shim")


class Ran:
    """How a run of the shim ended."""

    def __init__(
        self, process: subprocess.CompletedProcess[str], report: pathlib.Path, layers: Layers | None = None
    ) -> None:
        self.code = process.returncode
        self.out = process.stdout
        self.err = process.stderr
        self.report: dict[str, Any] = json.loads(report.read_text()) if report.exists() else {}
        self._layers = layers
        if self.report:
            jsonschema.validate(self.report, SCHEMA)

    @property
    def outcome(self) -> str:
        return str(self.report.get("outcome"))

    def expect(self, **wanted: object) -> Ran:
        """Compare `code`, `out`, `err`, `reference` (analyzed.toml's, now) and what the report says under a name."""
        own = {"code": self.code, "out": self.out, "err": self.err}
        found = {name: own.get(name, self.report.get(name)) for name in wanted}
        if "reference" in wanted:
            found["reference"] = self._layers and self._layers.reference
        assert found == wanted, self.out + self.err
        return self


class Build:
    """A build: its layers directory, and the phases with the shim as a user runs it, each a process."""

    def __init__(self, directory: pathlib.Path, lifecycle: pathlib.Path, layers: Layers) -> None:
        self.directory = directory
        self.lifecycle = lifecycle
        self.layers = layers
        self.env = {
            **{
                k: v
                for k, v in os.environ.items()
                if not k.startswith(("CNB_", "ANALYZED_SHIM_", "DOCKER_", "STANDIN_", "PYTHONUNBUFFERED"))
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

    def phase(
        self, name: str = "restorer", *, exits: int | None = None, rewrites_to: str = "", does: str = ""
    ) -> pathlib.Path:
        """Write a stand-in of a phase, by what it does.

        Args:
            name: which phase.
            exits: its exit status; else that of what it does.
            rewrites_to: what it makes of the reference r:1.
            does: what it does before, as lines of a shell's script.

        """
        if rewrites_to:
            does = f'sed -i \'s|reference = "r:1"|reference = "{rewrites_to}"|\' {self.layers.toml}'
        return program(
            self.directory / name, "\n".join(["#!/bin/sh", does, "" if exits is None else f"exit {exits}", ""])
        )

    def run(self, phase: str | pathlib.Path, *arguments: str, options: Any = (), **environ: str) -> Ran:
        """Wrap a phase of the stand-in, or whatever is at a path."""
        path = self.lifecycle / phase
        return self.call(*SHIM, "run", *options, "--", str(path), *arguments, **environ)

    def call(self, *command: str, **environ: str) -> Ran:
        report = self.directory / "report.json"
        report.unlink(missing_ok=True)
        env = {"ANALYZED_SHIM_REPORT": str(report), **self.env, **environ}
        process = subprocess.run(command, env=env, capture_output=True, text=True, timeout=60, check=False)
        assert "Traceback" not in process.stdout + process.stderr, process.stderr
        return Ran(process, report, self.layers)
