"""The CI step, for scripts that can't put `run --` before a phase: `snapshot` before the restorer, `fix` after it.

`fix` acts by the exporter's rows, 9 and 10, on what is known or likely of the build; nothing is run.
"""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING

from shim.errors import BrokenFile, EditRefused, MissingFile, NotRepaired, WrongUse
from shim.layers import analyzed, files
from shim.phase.gather import Look, with_tip
from shim.phase.log import voice
from shim.phase.report import write_report
from shim.policy import rows as policy
from shim.record import Record

if TYPE_CHECKING:
    from shim.layers.analyzed import Analyzed
    from shim.phase.invocation import Invocation
    from shim.phase.settings import Settings
    from shim.policy.facts import Certainty
    from shim.policy.rows import Row


class Wishes(Record):
    """What `fix` was asked for beside its settings."""

    snapshot: str
    """Where the snapshot is, if there is one."""
    dry_run: bool = False
    diff: bool = False
    exit_code: bool = False
    """Exit 1 where something was changed, or would be, as `git diff --exit-code` does."""


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
        files.replace(to, found.data, found.about.st_mode & 0o7777, rights=call.rights)
    except OSError as problem:
        raise EditRefused(f"{to} can't be written: {problem.strerror}", "give another place with --to") from None


def fix(call: Invocation, chosen: Settings, wishes: Wishes) -> int:
    """Put `run-image.reference` right for the export, and return the exit code.

    Args:
        call: an exporter's call that says where the files are and which Platform API it is.
        chosen: the shim's settings.
        wishes: what else was asked for.

    Raises:
        MissingFile, BrokenFile: there is no analyzed.toml that can be read.
        WrongUse: it is known to be a registry build, or nothing says that it is a daemon build.
        NotRepaired: it couldn't be put right, under `--strict`.

    """
    return _Fix(call, chosen, wishes).run()


class _Fix(Look):
    """One repair."""

    def __init__(self, call: Invocation, chosen: Settings, wishes: Wishes) -> None:
        super().__init__(call, chosen, voice(call.environ, call.flags))
        self.wishes = wishes
        self.certainty: Certainty = "unknown"
        self.pristine: Analyzed | None = None

    def run(self) -> int:
        if self.call.api == "affected":
            self.before = self.now = analyzed.read(self.call.analyzed, self.call.rights)
            self._compare()
            self._weigh()
        row = policy.decide(self.facts)
        while row.verdict.step != "nothing":
            if row.verdict.step == "ask-name":
                self.settle(self.ask_for_name())
            else:
                self.ask_for_reference()
            row = policy.decide(self.facts)
        return self._finish(row)

    def _compare(self) -> None:
        """Take in what the snapshot tells: the name, where it isn't in analyzed.toml."""
        assert self.now is not None
        now = self.now
        try:
            self.pristine = analyzed.read(self.wishes.snapshot, self.call.rights)
        except MissingFile:
            pass
        except BrokenFile as problem:
            self.warn(with_tip(problem))
        name = now.image
        if not name and self.pristine and self.pristine.kind == "name" and now.kind in ("digest", "empty"):
            name = self.pristine.reference
        self.now = self.before = now.but(image=name)
        self.facts = self.facts.but(run_image=now.run_image, image=bool(name), reference=now.kind)

    def _weigh(self) -> None:
        """Say which build it is; where nothing does, ask the daemon for the name, as the restorer's wrapper would."""
        assert self.now is not None
        clues = self.clues(self.now)
        if clues.marker is None and self.pristine is not None:
            clues = clues.but(marker=self.pristine.marker)
        evidence = policy.weigh(clues)
        self.by = evidence.by
        if evidence.build != "unsaid":
            self.certainty = "known"
            self.facts = self.facts.but(build=evidence.build)
            self._refuse_registry_build()
            if evidence.build == "daemon" and self._has_something_to_ask():
                self.find_engine()
            return
        if not self.facts.image or self.facts.reference == "name":
            return  # the exporter takes it as it is, in either build
        self.find_engine()
        if self.facts.engine == "unasked":
            self.settle(self.ask_for_name())
        if self.facts.engine not in ("has", "denied"):
            raise WrongUse(
                f"nothing says whether {self.call.analyzed} is of a daemon build ({self.detail})",
                "give --daemon if it is; a build for a registry doesn't need this step",
            )
        self.certainty = "likely"
        self.by = "the engine"
        self.facts = self.facts.but(build="daemon")

    def _has_something_to_ask(self) -> bool:
        return self.facts.image and self.facts.reference in ("digest", "empty")

    def _refuse_registry_build(self) -> None:
        healing = self.facts.image and self.facts.reference in ("id", "empty")
        if self.facts.build == "registry" and not healing:
            raise WrongUse(
                f"{self.call.analyzed} is of a build for a registry, by {self.by}, where the digest is right",
                "leave this step out there, or give --daemon if it is a daemon build",
            )

    def _finish(self, row: Row) -> int:
        row, changed = self._change(row)
        sentence = self.sentence(row)
        failed = self.settings.strict and row.verdict.outcome in policy.FAILING
        code = NotRepaired.exit_code if failed else int(changed and self.wishes.exit_code)
        if row.verdict.level in ("warn", "error"):
            self.warnings.append(sentence)
        would = "would be " if changed and self.wishes.dry_run else ""
        level = "info" if row.verdict.level == "debug" else row.verdict.level
        if self.call.api == "unset":
            level = "warn"
            sentence += ": give --platform-api or CNB_PLATFORM_API, as the phases get it"
        self.voice.say(level, f"{sentence}: {would}{row.verdict.outcome}")
        self._report(row, changed, code)
        if not self.wishes.dry_run and self.pristine is not None and row.verdict.outcome != "unrepaired":
            self._remove_snapshot()
        return code

    def _remove_snapshot(self) -> None:
        try:
            with self.call.rights.within(os.path.dirname(self.wishes.snapshot)):
                os.unlink(self.wishes.snapshot)
        except OSError as problem:
            self.voice.say("warn", f"{self.wishes.snapshot} can't be removed: {problem.strerror}")

    def _change(self, row: Row) -> tuple[Row, bool]:
        """Do or show what is to be written; say whether that is a change."""
        if row.verdict.write == "nothing":
            return row, False
        assert self.now is not None
        reference = (self.id if row.verdict.write == "id" else self.now.image) or ""
        try:
            if self.wishes.diff or self.wishes.dry_run:
                new = analyzed.edit(self.now.path, self.now.data, reference)
                if self.wishes.diff:
                    _show_diff(self.now, new)
            if not self.wishes.dry_run:
                analyzed.write_reference(self.now, reference, self.call.rights)
        except (EditRefused, MissingFile, BrokenFile) as problem:
            return self.unrepaired(row, problem), False
        changed = reference != self.now.reference
        self.now = self.now.but(reference=reference)
        return row, changed

    def _report(self, row: Row, changed: bool, code: int) -> None:
        before, now = self.before, self.now
        if self.settings.report is None:
            return
        report = self.report_of(
            row,
            phase="fix",
            certainty=self.certainty if before else None,
            reference_before=self.pristine.reference if self.pristine else None,
            reference_after=before.reference if before else None,
            reference_final=now.reference if now else None,
            exit_code=code,
            changed=changed,
            dry_run=self.wishes.dry_run,
        )
        write_report(self.settings.report, self.voice, report, self.call.rights)


def _show_diff(now: Analyzed, new: bytes) -> None:
    """Print a unified diff to stdout, coloured on a terminal."""
    import difflib

    old_lines, new_lines = (data.decode().splitlines(keepends=True) for data in (now.data, new))
    coloured = sys.stdout.isatty() and not os.environ.get("NO_COLOR")
    for line in difflib.unified_diff(old_lines, new_lines, now.path, f"{now.path} (fixed)"):
        colour = {"-": "31", "+": "32", "@": "36"}.get(line[0]) if coloured else None
        text = line.rstrip("\n")
        print(f"\x1b[{colour}m{text}\x1b[0m" if colour else text)
