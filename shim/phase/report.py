"""What was found and done, as JSON, for scripts and for a person who asks why."""

from __future__ import annotations

import os

from shim import __version__
from shim.layers.rights import AS_IT_IS
from shim.record import Record, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.daemon.client import About
    from shim.layers.rights import Rights
    from shim.phase.log import Voice
    from shim.policy.facts import Certainty, Outcome

_WRITE = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NONBLOCK | os.O_NOCTTY
SCHEMA = 1
"""Raised where a field changes its meaning or goes; a new one doesn't raise it."""


class Report(Record):
    """One run of the shim. A field that is None is left out."""

    phase: str
    platform_api: str
    outcome: Outcome
    row: str
    reason: str
    warnings: tuple[str, ...] = ()
    run_image: str | None = None
    """The run image's name."""
    build: str | None = None
    certainty: Certainty | None = None
    evidence: str | None = None
    reference_before: str | None = None
    reference_after: str | None = None
    """As the restorer left it."""
    reference_final: str | None = None
    image_id: str | None = None
    """The daemon's image under the name: 64 hex digits."""
    pulled: bool | None = None
    engine: About | None = None
    command: tuple[str, ...] = ()
    exit_code: int | None = None
    """The phase's; absent where the shim became the phase."""
    runs: int | None = None
    changed: bool | None = None
    """analyzed.toml was changed, or would be (`fix`)."""
    dry_run: bool | None = None
    seconds: float = 0.0


def as_json(report: Report) -> str:
    """Return a report as JSON text."""
    import json  # half a bare interpreter start, for those who ask for a report

    values: dict[str, object] = {"schema": SCHEMA, "shim": __version__}
    values.update((name, value) for name, value in fields(report).items() if value is not None)
    if report.engine is not None:
        values["engine"] = fields(report.engine)
    return json.dumps(values, indent=1) + "\n"


def write_report(place: str | None, speaker: Voice, report: Report, rights: Rights = AS_IT_IS) -> None:
    """Write a report to a file, or to stdout where the place is `-`; `{phase}` in it becomes the phase.

    What goes wrong is a warning: a report fails no build. Nor does it wait for a reader, where the file is a pipe.
    """
    if place is None:
        return
    path = place.replace("{phase}", report.phase)
    try:
        if path == "-":
            print(as_json(report), end="", flush=True)
            return
        with rights.within(os.path.dirname(path)) as user:
            descriptor = os.open(path, _WRITE | (os.O_NOFOLLOW if user else 0), 0o666)
        with open(descriptor, "w", encoding="utf-8") as file:
            file.write(as_json(report))
    except (OSError, ValueError) as problem:
        speaker.say("warn", f"the report can't be written to {path}: {problem}")
