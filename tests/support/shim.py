"""The shim as a process, and how it ended."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import jsonschema

from tests.support.layers import Layers

SCHEMA = json.loads((pathlib.Path(__file__).parents[2] / "docs" / "reference" / "report.schema.json").read_text())
SHIM = (sys.executable, "-m", "shim")


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
