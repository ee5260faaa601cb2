"""The report: what was found and done, as JSON, for scripts and for a person who asks why."""

from __future__ import annotations

from shim import __version__
from shim.layers import replacing
from shim.layers.rights import AS_IT_IS
from shim.phase.gather import sentence
from shim.record import Record, fields

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from shim.daemon.client import About
    from shim.layers.rights import Rights
    from shim.phase.gather import Seen
    from shim.phase.invocation import Invocation
    from shim.phase.log import Log
    from shim.policy.facts import Certainty
    from shim.policy.row import End, Outcome

SCHEMA = 1
"""Raised if a field changes its meaning or goes; a new one doesn't raise it."""


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
    """The daemon's image for the name: 64 hex digits."""
    pulled: bool | None = None
    daemon: About | None = None
    command: tuple[str, ...] = ()
    exit_code: int | None = None
    """The phase's; absent if the shim exec'ed the phase."""
    runs: int | None = None
    changed: bool | None = None
    """analyzed.toml was changed, or would be (`fix`)."""
    dry_run: bool | None = None
    seconds: float = 0.0


def report_of(row: End, seen: Seen, call: Invocation, log: Log, **more: Any) -> Report:
    """Return the report of a run.

    Args:
        row: how it ended.
        seen: what was found; a daemon that answered is asked once more what it is.
        call: the phase's call.
        log: where the warnings are.
        more: other fields.

    """
    facts = seen.facts
    return Report(
        phase=call.phase,
        platform_api=call.platform_api,
        outcome=row.outcome,
        row=row.name,
        reason=sentence(row, seen, call),
        warnings=tuple(log.warnings),
        run_image=seen.name or None,
        build=None if facts.build == "unknown" else facts.build,
        evidence=seen.evidence or None,
        reference_before=seen.before.reference if seen.before else None,
        reference_after=seen.left,
        reference_final=seen.now.reference if seen.now else None,
        image_id=seen.image_id,
        pulled=seen.pulled,
        daemon=seen.session.about() if seen.session and seen.session.answered else None,
        runs=seen.runs or None,
        **more,
    )


def as_json(report: Report) -> str:
    """Return a report as JSON text."""
    import json  # half a bare interpreter start, for those who ask for a report

    values: dict[str, object] = {"schema": SCHEMA, "shim": __version__}
    values.update((name, value) for name, value in fields(report).items() if value is not None)
    if report.daemon is not None:
        values["daemon"] = fields(report.daemon)
    return json.dumps(values, indent=1) + "\n"


def write_report(place: str | None, log: Log, report: Report, rights: Rights = AS_IT_IS) -> None:
    """Write a report to a file, or to stdout if the place is `-`; `{phase}` in it stands for the phase.

    What goes wrong is a warning: a report fails no build. Nor does it wait for a reader, if the file is a pipe.
    """
    if place is None:
        return
    path = place.replace("{phase}", report.phase)
    try:
        replacing.write("/dev/stdout" if path == "-" else path, as_json(report).encode(), rights)
    except (OSError, ValueError) as problem:
        log.write("warn", f"the report can't be written to {path}: {getattr(problem, 'strerror', None) or problem}")
