"""Wrap one phase: gather, decide and do, then write, say, and exec the phase or return its exit status."""

from __future__ import annotations

import time

from shim import policy
from shim.errors import (
    BrokenFile,
    CannotStart,
    EditRefused,
    MissingFile,
    NotInDaemon,
    NotRepaired,
    PullFailed,
    ShimError,
)
from shim.layers import analyzed, group, note
from shim.phase import handover, process, program, settings
from shim.phase.gather import ask, ask_for_name, gather, sentence, with_image, with_what_was_left
from shim.policy.evidence import certainty
from shim.words import without_secrets

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from shim.daemon.session import Inquiry
    from shim.phase.gather import Seen
    from shim.phase.invocation import Invocation
    from shim.phase.log import Log
    from shim.phase.settings import Settings
    from shim.policy.row import End, Step


def wrap(call: Invocation, path: str, options: Mapping[str, str], log: Log) -> int:
    """Wrap a phase, and return the exit code; if the shim execs the phase, this does not return.

    Args:
        call: the phase's call.
        path: what is started for it.
        options: the shim's own options that were given, by name.
        log: where the shim's lines go.

    Raises:
        ShimError: what ends in an error of the shim's own; any other error is said, and fails no build.

    """
    affected = call.phase != "other" and not call.about and call.api == "affected"
    own = {name: value for name, value in call.environ.items() if name.startswith("ANALYZED_SHIM_")}
    chosen = settings.read(options, {**call.variables, **own}, only_report=not affected)
    wrapped = _Wrapped(call, path, chosen, log)
    try:
        return wrapped.run()
    except ShimError:
        raise
    except Exception as problem:
        log.write("warn", f"internal error, please report it: {problem!r} (the phase's exit status is unaffected)")
        if wrapped.code is not None:
            return wrapped.code
        program.become(path, call.argv, call.environ)


class _Wrapped:
    """One run of a phase: the world whose steps are real."""

    def __init__(self, call: Invocation, path: str, chosen: Settings, log: Log) -> None:
        self._began = time.monotonic()
        self._call = call
        self._path = path
        self._settings = chosen
        self._log = log
        self.code: int | None = None
        """The phase's exit status, if it was run as a child process."""

    def run(self) -> int:
        seen, row = policy.settle(gather(self._call, self._settings, self._log), self)
        return self._finish(row, seen)

    # The steps.

    def do(self, step: Step, seen: Seen) -> Seen:
        """Do a step, and return what is known then."""
        if step.says:
            self._log.write("warn", sentence(step, seen, self._call))
        if step.action == "run":
            return self._run_restorer(step, seen)
        if step.action == "pull":
            return self._pull(seen)
        return ask(step, seen)

    def _pull(self, seen: Seen) -> Seen:
        from shim.phase.progress import Progress

        assert seen.session is not None
        name = seen.name
        progress = Progress(self._log, name)
        try:
            found = seen.session.pull(name, progress.tell, lambda sentence: self._log.write("warn", sentence))
        except PullFailed as problem:
            self._log.write("warn", f"{name} can't be pulled: {problem.with_tip}")
            return seen.but(facts=seen.facts.but(pull_tried=True), pulled=False)
        finally:
            progress.end()
        return seen.but(facts=seen.facts.but(pull_tried=True, daemon="has"), pulled=True, image_id=found.id)

    def _run_restorer(self, step: Step, seen: Seen) -> Seen:
        """Run the restorer as a child process, and return what is known of how it ended and what it left."""
        assert seen.before is not None and seen.now is not None
        argv = self._call.argv if step.lookup else self._without_lookup(seen)
        question: list[Inquiry] = []

        def meanwhile() -> None:
            if step.asks:
                question.append(ask_for_name(seen))

        ending = self._run(argv, meanwhile)
        ended = ending.killed or (ending.interrupted and ending.code)  # such a one isn't run again
        seen = seen.but(
            facts=seen.facts.but(
                run="as-called" if argv == self._call.argv else "without-lookup",
                preventable=step.lookup or argv != self._call.argv,
                status="killed" if ended else "failed" if ending.code else "succeeded",
                retried=seen.runs > 0,
            ),
            ending=ending,
            runs=seen.runs + 1,
        )
        if question and not ended:
            seen = with_image(seen, *question)
        return with_what_was_left(seen, self._call)

    def _run(self, argv: tuple[str, ...], meanwhile: Callable[[], None]) -> process.Ending:
        try:
            ending = process.run(self._path, argv, self._call.environ, meanwhile)
        except CannotStart as problem:  # an exec takes no more room than the bare phase
            self._log.write(
                "warn", f"{problem.with_tip}; execing the {self._call.phase} instead, so nothing is fixed after it"
            )
            program.become(self._path, argv, self._call.environ)
        self.code = ending.code
        return ending

    def _without_lookup(self, seen: Seen) -> tuple[str, ...]:
        """Return the phase's arguments with a group.toml that has no extensions, so that it asks no registry."""
        call = self._call
        try:
            content = group.without_extensions(call.group, seen.group)
        except BrokenFile as problem:
            self._log.write("warn", f"the registry lookup can't be prevented: {problem.with_tip}")
            return call.argv
        # A binary gets a file that nobody has to remove. What a script or a launcher starts may not get open files.
        direct = call.named and not call.launched and handover.is_elf(self._path)
        path = handover.memory_file("group.toml", content) if direct else None
        path = path or self._group_in_note(content) or handover.memory_file("group.toml", content)
        if path is None:
            self._log.write("warn", f"the registry lookup can't be prevented: no place for a copy of {call.group}")
        return handover.with_group(call, path) if path else call.argv

    def _group_in_note(self, content: bytes) -> str | None:
        """Put the group into the note, which lies where the phase finds its other files, and is a group.toml too."""
        path = note.path_beside(self._call.analyzed)
        try:
            daemon = note.read(path, self._call.rights)
        except BrokenFile:  # it was said already, if it mattered
            daemon = None
        try:
            note.leave(path, daemon, self._call.rights, content)
        except (OSError, BrokenFile):
            return None
        return path

    # The end.

    def _finish(self, row: End, seen: Seen) -> int:
        """Write, say it, and exec the phase or return its status."""
        row, seen = self._write(row, seen)
        try:
            if row.finish == "refuse":
                tip = f"docker pull {seen.name}, or use another --pull-policy"
                raise NotInDaemon(sentence(row, seen, self._call), tip, row.outcome)
            if not self.code and self._settings.strict and row.outcome in policy.FAILING:
                raise NotRepaired(sentence(row, seen, self._call), "leave out --strict to go on anyway", row.outcome)
        except ShimError as problem:
            self._report(row, seen, problem.exit_code)
            raise
        if row.finish == "exec":
            argv = self._call.argv if row.lookup else self._without_lookup(seen)
            self._log.write(row.level, sentence(row, seen, self._call), row.outcome)
            self._report(row, seen, None)
            program.become(self._path, argv, self._call.environ)
        assert self.code is not None
        self._log.write(row.level, sentence(row, seen, self._call), row.outcome)
        self._report(row, seen, self.code)
        return self.code

    def _write(self, row: End, seen: Seen) -> tuple[End, Seen]:
        """Write what the row says; if that can't be done, the row says so."""
        if row.write == "nothing":
            return row, seen
        assert seen.now is not None
        reference = seen.image_id if row.write == "id" else seen.name
        assert reference
        try:
            analyzed.write_reference(seen.now, reference, self._call.rights)
        except (EditRefused, MissingFile, BrokenFile) as problem:
            return unrepaired(row), seen.but(detail=f"{problem.with_tip}; run-image.reference should be {reference}")
        return row, seen.but(now=seen.now.but(reference=reference))

    def _report(self, row: End, seen: Seen, code: int | None) -> None:
        if self._settings.report is None:
            return
        from shim.phase.report import report_of, write_report

        report = report_of(
            row,
            seen,
            self._call,
            self._log,
            certainty=certainty(seen.facts) if seen.before else None,
            command=tuple(without_secrets(word) if "://" in word else word for word in self._call.argv),
            exit_code=code,
            seconds=round(time.monotonic() - self._began, 3),
        )
        write_report(self._settings.report, self._log, report, self._call.rights)


def unrepaired(row: End) -> End:
    """Return the row with what came of it: what it should have written couldn't be."""
    return row.but(outcome="unrepaired", level="warn", says="{detail}")
