"""The CI step, for scripts that can't put `run --` before a phase: `snapshot` before the restorer, `fix` after it."""

from __future__ import annotations

import difflib
import os

from shim import analyzed, files, policy, report
from shim.analyzed import Analyzed
from shim.call import Call
from shim.errors import FileProblem, WriteRefused
from shim.log import Log
from shim.policy import Found, Row
from shim.settings import Settings
from shim.wrap import build_type, daemon_of


def _snapshot_of(call: Call) -> str:
    return os.path.join(os.path.dirname(call.analyzed), "analyzed-shim.snapshot.toml")


def snapshot(call: Call) -> str:
    """Keep a copy of the analyzed.toml that a call has, beside it, and return its path.

    Raises FileProblem: there is no analyzed.toml that can be read. WriteRefused: the copy can't be written.
    """
    files.replace(_snapshot_of(call), analyzed.read(call.analyzed).data)
    return _snapshot_of(call)


def fix(call: Call, chosen: Settings, dry_run: bool) -> None:
    """Repair `run-image.reference` for the export, or show the difference, and print to stdout what was done.

    The files and the Platform API are those of a call.

    Raises FileProblem: there is no analyzed.toml that can be read. NotRepaired: it couldn't be repaired, under
    `--strict`.
    """
    log, daemon = Log(call.variables, {}), daemon_of(call, chosen)
    now = analyzed.read(call.analyzed)
    before = _before(call, now)
    build, known_by = build_type(call, chosen, log)
    row, found = _decide(call, build, before, now, daemon.look)
    detail, after = found.detail or f"nothing to do at Platform API {call.platform_api or '(unset)'}", now.reference
    try:
        if row.write:
            after = found.image_id if row.write == "id" else before.name
            if dry_run:
                _show_difference(now, analyzed.edit(now, after)[0])
            else:
                analyzed.write_reference(now, after)
    except WriteRefused as problem:
        row, detail, after = policy.NOT_WRITTEN, problem.with_tip, now.reference
    was = before._replace(reference=now.reference)
    facts = report.Facts(call, (build, known_by), was, now.reference, after, daemon.address, 0)
    sentence = report.conclude(row, found, detail, facts, chosen, log)
    print(f"{sentence} [{row.outcome}]{' (dry run: nothing was changed)' if row.write and dry_run else ''}")
    if not dry_run and before is not now and row is not policy.NOT_WRITTEN:
        files.remove(_snapshot_of(call))


def _before(call: Call, now: Analyzed) -> Analyzed:
    """Return the snapshot, with the name that analyzed.toml has now if it has one; analyzed.toml without a snapshot."""
    try:
        kept = analyzed.read(_snapshot_of(call))
    except FileProblem as problem:
        if problem.missing:
            return now
        raise
    return kept._replace(image=now.image or kept.image)


def _decide(call: Call, build: bool | None, before: Analyzed, now: Analyzed, look: policy.Look) -> tuple[Row, Found]:
    """Return what is done: in a known daemon build as before an exporter, in an unknown one as after a restorer."""
    if not call.is_affected or not before.image:
        return policy.NOTHING_TO_DO, policy.UNASKED
    if build is False:
        return policy.REGISTRY_BUILD, policy.UNASKED
    if build:
        row, found = policy.exporter(now.reference, before.name, look)
    else:
        was = before.reference if before is not now else before.name
        row, found = policy.after_restorer(False, was, now.reference, before.name, look)
    return policy.filled(row, now.reference, before.image), found


def _show_difference(now: Analyzed, new: bytes) -> None:
    old_lines, new_lines = now.data.decode().splitlines(), new.decode().splitlines()
    print(*difflib.unified_diff(old_lines, new_lines, now.path, f"{now.path} (fixed)", lineterm=""), sep="\n")
