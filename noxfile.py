"""What CI and developers run, in the one environment that .ci/setup makes: `.venv/bin/nox`, or `.venv/bin/nox -l`.

Words after `--` go on to the command of the session: `.venv/bin/nox -s tests -- tests/unit`.
"""

from __future__ import annotations

import sys

import nox

nox.options.default_venv_backend = "none"
nox.options.sessions = ["style", "types", "quick"]


def python(session: nox.Session, *arguments: str) -> None:
    """Run this environment's Python."""
    session.run(sys.executable, *arguments, *session.posargs)


@nox.session
def style(session: nox.Session) -> None:
    """Lint, and check the format."""
    python(session, "-m", "ruff", "check")
    python(session, "-m", "ruff", "format", "--check")


@nox.session
def types(session: nox.Session) -> None:
    """Check the types, strictly."""
    python(session, "-m", "mypy")


@nox.session
def quick(session: nox.Session) -> None:
    """Run the tests that need nothing but a file system."""
    python(session, "-m", "pytest", "-q", "-n", "2", "tests/unit")


@nox.session
def tests(session: nox.Session) -> None:
    """Run all tests that this machine can run, on two cores."""
    python(session, "-m", "pytest", "-n", "2")


@nox.session
def costs(session: nox.Session) -> None:
    """Compare what a wrapped phase costs with the limits."""
    python(session, "benchmarks/measure.py", "--guard")
