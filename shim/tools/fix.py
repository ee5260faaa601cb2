"""The CI step, for scripts that can't put `run --` before a phase: `snapshot` before the restorer, `fix` after it.

`fix` acts by the exporter's rows, if it is known or likely what the build exports to; no phase is run.
"""

from __future__ import annotations

import os
import sys
import time
from typing import TYPE_CHECKING

from shim import policy
from shim.errors import BrokenFile, EditRefused, MissingFile, NotRepaired, WrongUse
from shim.layers import analyzed, replacing
from shim.phase.gather import Seen, ask, clues, sentence, with_daemon, with_image
from shim.phase.log import log_for
from shim.phase.report import report_of, write_report
from shim.phase.wrap import unrepaired
from shim.policy.evidence import certainty, weigh
from shim.policy.facts import Facts
from shim.record import Record

if TYPE_CHECKING:
    from shim.layers.analyzed import Analyzed
    from shim.phase.invocation import Invocation
    from shim.phase.log import Log
    from shim.phase.settings import Settings
    from shim.policy.row import End, Step


class Choices(Record):
    """What `fix` takes beside the settings."""

    snapshot: str
    """Where the snapshot is, if there is one."""
    dry_run: bool = False
    diff: bool = False
    exit_code: bool = False
    """Exit with 1 if something was changed, or would be, as `git diff --exit-code` does."""


def default_snapshot(path: str) -> str:
    """Return where an analyzed.toml's snapshot is kept: beside it."""
    return os.path.join(os.path.dirname(path), "analyzed-shim.snapshot.toml")


def snapshot(call: Invocation, to: str) -> None:
    """Keep a copy of analyzed.toml, to be compared with what the restorer makes of it.

    Args:
        call: a restorer's call that says where analyzed.toml is.
        to: where to keep it.

    Raises:
        MissingFile, BrokenFile: there is no analyzed.toml that can be read.
        EditRefused: the copy can't be written.

    """
    found = analyzed.read(call.analyzed, call.rights)
    try:
        replacing.replace(to, found.data, found.about.st_mode & 0o7777, rights=call.rights)
    except OSError as problem:
        raise EditRefused(f"{to} can't be written: {problem.strerror}", "choose another path with --to") from None


def fix(call: Invocation, chosen: Settings, choices: Choices) -> int:
    """Repair `run-image.reference` for the export, and return the exit code.

    Args:
        call: an exporter's call that says where the files are and which Platform API it is.
        chosen: the shim's settings.
        choices: what else was asked for.

    Raises:
        MissingFile, BrokenFile: there is no analyzed.toml that can be read.
        WrongUse: it is known to be a registry build, or nothing indicates a daemon build.
        NotRepaired: it couldn't be repaired, under `--strict`.

    """
    return _Fix(call, chosen, choices).run()


class _Fix:
    """One repair: the world in which only the daemon is asked."""

    def __init__(self, call: Invocation, chosen: Settings, choices: Choices) -> None:
        self._began = time.monotonic()
        self._call = call
        self._settings = chosen
        self._choices = choices
        self._log: Log = log_for(call.environ, call.flags)

    def run(self) -> int:
        seen = Seen(facts=Facts(phase="exporter", api=self._call.api))
        before: Analyzed | None = None
        if self._call.api == "affected":
            before = self._snapshot()
            seen = self._weigh(self._look(before), before)
        seen, row = policy.settle(seen, self)
        return self._finish(row, seen, before)

    def do(self, step: Step, seen: Seen) -> Seen:
        """Ask the daemon, and return what is known then."""
        return ask(step, seen)

    def _snapshot(self) -> Analyzed | None:
        try:
            return analyzed.read(self._choices.snapshot, self._call.rights)
        except MissingFile:
            return None
        except BrokenFile as problem:
            self._log.write("warn", problem.with_tip)
            return None

    def _look(self, before: Analyzed | None) -> Seen:
        """Return what the files say; the name is the snapshot's reference, if analyzed.toml has none."""
        now = analyzed.read(self._call.analyzed, self._call.rights)
        name = now.image
        if not name and before and before.kind == "name" and now.kind in ("digest", "empty"):
            name = before.reference
        now = now.but(image=name)
        facts = Facts(phase="exporter", run_image=now.run_image, image=bool(name), reference=now.kind)
        return Seen(facts=facts, before=now, now=now)

    def _weigh(self, seen: Seen, before: Analyzed | None) -> Seen:
        """Return what the build exports to; if nothing says so, by asking the daemon for the name."""
        found = clues(seen, self._call, self._settings, self._log)
        if found.marker is None and before is not None:
            found = found.but(marker=before.marker)
        build, by = weigh(found)
        if build != "unknown":
            seen = seen.but(facts=seen.facts.but(build=build), evidence=by)
            self._refuse_registry_build(seen)
            asks = build == "daemon" and seen.facts.image and seen.facts.reference in ("digest", "empty")
            return with_daemon(seen, self._call, self._settings) if asks else seen
        if not seen.facts.image or seen.facts.reference == "name":
            return seen  # the exporter takes it as it is, in either build
        seen = with_daemon(seen, self._call, self._settings)
        if seen.facts.daemon == "unasked":
            seen = with_image(seen)
        if certainty(seen.facts) != "likely":
            raise WrongUse(
                f"nothing indicates whether {self._call.analyzed} is of a daemon build ({seen.detail})",
                "pass --daemon if it is; a registry build doesn't need this step",
            )
        return seen.but(facts=seen.facts.but(build="daemon"), evidence="the daemon")

    def _refuse_registry_build(self, seen: Seen) -> None:
        heals = seen.facts.image and seen.facts.reference in ("id", "empty")
        if seen.facts.build == "registry" and not heals:
            raise WrongUse(
                f"{self._call.analyzed} is of a registry build (by {seen.evidence}), in which the digest is right",
                "leave this step out there, or pass --daemon if it is a daemon build",
            )

    def _finish(self, row: End, seen: Seen, before: Analyzed | None) -> int:
        row, seen, changed = self._write(row, seen)
        failed = self._settings.strict and row.outcome in policy.FAILING
        code = NotRepaired.exit_code if failed else int(changed and self._choices.exit_code)
        words = sentence(row, seen, self._call)
        level = "info" if row.level == "debug" else row.level
        if self._call.api == "unset":
            level, words = "warn", f"{words} (pass --platform-api or set CNB_PLATFORM_API, as for the phases)"
        if changed and self._choices.dry_run:
            words += " (dry run: nothing was changed)"
        self._log.write(level, words, row.outcome)
        self._report(row, seen, before, changed, code)
        if not self._choices.dry_run and before is not None and row.outcome != "unrepaired":
            self._remove_snapshot()
        return code

    def _write(self, row: End, seen: Seen) -> tuple[End, Seen, bool]:
        """Write or show what the row says; return whether that is a change."""
        if row.write == "nothing":
            return row, seen, False
        assert seen.now is not None
        reference = (seen.image_id if row.write == "id" else seen.now.image) or ""
        try:
            if self._choices.diff or self._choices.dry_run:
                new = analyzed.edit(seen.now, reference)
                if self._choices.diff:
                    _show_diff(seen.now, new)
            if not self._choices.dry_run:
                analyzed.write_reference(seen.now, reference, self._call.rights)
        except (EditRefused, MissingFile, BrokenFile) as problem:
            return unrepaired(row), seen.but(detail=problem.with_tip), False
        changed = reference != seen.now.reference
        return row, seen.but(now=seen.now.but(reference=reference)), changed

    def _report(self, row: End, seen: Seen, before: Analyzed | None, changed: bool, code: int) -> None:
        if self._settings.report is None:
            return
        known = "likely" if seen.evidence == "the daemon" else certainty(seen.facts)
        report = report_of(
            row,
            seen,
            self._call,
            self._log,
            certainty=known if seen.before else None,
            exit_code=code,
            changed=changed,
            dry_run=self._choices.dry_run,
            seconds=round(time.monotonic() - self._began, 3),
        )
        report = report.but(
            phase="fix",
            reference_before=before.reference if before else None,
            reference_after=seen.before.reference if seen.before else None,
        )
        write_report(self._settings.report, self._log, report, self._call.rights)

    def _remove_snapshot(self) -> None:
        try:
            replacing.remove(self._choices.snapshot, self._call.rights)
        except OSError as problem:
            self._log.write("warn", f"{self._choices.snapshot} can't be removed: {problem.strerror}")


def _show_diff(found: Analyzed, new: bytes) -> None:
    """Print a unified diff to stdout, coloured on a terminal."""
    import difflib

    old_lines, new_lines = (data.decode().splitlines(keepends=True) for data in (found.data, new))
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in difflib.unified_diff(old_lines, new_lines, found.path, f"{found.path} (fixed)"):
        colour = {"-": "31", "+": "32", "@": "36"}.get(line[0]) if coloured else None
        text = line.rstrip("\n")
        print(f"\x1b[{colour}m{text}\x1b[0m" if colour else text)
    sys.stdout.flush()
