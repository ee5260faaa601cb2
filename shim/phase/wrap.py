"""The story of one wrapped phase: look, decide, ask or run, decide again; then write, say, pass the status on."""

from __future__ import annotations

import os

from shim.daemon import client as engine
from shim.errors import (
    BrokenFile,
    CannotRun,
    CannotStart,
    EditRefused,
    MissingFile,
    NotInDaemon,
    NotRepaired,
    NotThere,
    PullFailed,
    ShimError,
    WrongUse,
)
from shim.layers import analyzed, files, group, note
from shim.phase import invocation, process, settings
from shim.phase.gather import Look, with_tip
from shim.phase.log import voice
from shim.policy import rows as policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shim.daemon.client import Inquiry
    from shim.phase.invocation import Invocation
    from shim.phase.process import Ending
    from shim.policy.rows import Row


def run(arguments: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be `analyzed-shim run [OPTIONS] -- PHASE [ARG]...`, and return the exit code.

    Args:
        arguments: what stands behind `run`.
        environ: the environment, which the phase gets as it is.

    """

    def call() -> _Run:
        options, rest = settings.split(arguments)
        if not rest:
            raise WrongUse("no phase to run", "analyzed-shim run [OPTIONS] -- PHASE [ARG]...")
        return _Run(invocation.read(rest[0], rest, environ), options)

    return _told(call, invocation.read("", arguments or [""], environ))


def drop_in(real: str, argv: Sequence[str], environ: Mapping[str, str]) -> int:
    """Be a phase, in whose place the shim was put; where the shim becomes the phase it doesn't return.

    Args:
        real: the path of the real phase.
        argv: the arguments, the path of the phase's place first; all of them are the phase's.
        environ: the environment, which the phase gets as it is.

    """
    call = invocation.read(real, argv, environ)

    def begin() -> _Run:
        if not os.path.exists(real):
            raise NotThere(
                f"{real} isn't there, the real {call.phase}",
                f"put it there, or give its path as ANALYZED_SHIM_{call.phase.upper()}",
            )
        if os.path.samefile(real, argv[0]):
            raise CannotRun(
                f"{real} is the shim itself", f"ANALYZED_SHIM_{call.phase.upper()} is the real phase's path"
            )
        return _Run(call, {})

    return _told(begin, call)


def _told(begin: Callable[[], _Run], call: Invocation) -> int:
    """Run, and say what goes wrong in one line; a fault of our own fails no build either."""
    speaker = voice(call.environ, call.flags)
    try:
        run = begin()
        try:
            return run.run()
        except ShimError:
            raise
        except Exception as problem:
            speaker.say(
                "warn", f"a fault of the shim itself, please report it: {problem!r}; the phase's own status counts"
            )
            if run.ending is not None:
                return run.ending.code
            process.become(run.path, run.call.argv, run.call.environ)
    except ShimError as problem:
        speaker.say("error", with_tip(problem) + (f": {problem.outcome}" if problem.outcome else ""))
        return problem.exit_code


class _Run(Look):
    """One run of a wrapped phase: the facts so far, and what to do next."""

    def __init__(self, call: Invocation, options: Mapping[str, str]) -> None:
        self.path = process.find(call.program, call.environ)
        self.affected = call.phase != "other" and not call.about and call.api == "affected"
        chosen = settings.read(options, call.environ, only_report=not self.affected)
        super().__init__(call, chosen, voice(call.environ, call.flags))
        self.pulled: bool | None = None
        self.runs = 0
        self.final: str | None = None

    def run(self) -> int:
        """Decide and do until nothing is left to ask or to run, then finish."""
        if self.affected and self.call.phase == "analyzer":
            self._leave_note()
        elif self.affected:
            self.look()
        while True:
            row = policy.decide(self.facts)
            if row.verdict.run == "parent":
                self._run_restorer(row)
            elif row.verdict.step == "ask-name":
                self.settle(self.ask_for_name())
            elif row.verdict.step == "ask-reference":
                self.ask_for_reference()
            elif row.verdict.step == "pull":
                self._pull()
            else:
                return self._finish(row)

    def _leave_note(self) -> None:
        daemon = self.call.is_for_daemon
        self.by = "its flags and environment"
        self.facts = self.facts.but(build="daemon" if daemon else "registry")
        try:
            note.leave(self.note, daemon, self.call.rights)
        except OSError as problem:
            self.detail = f"{self.note} can't be written: {problem.strerror}"
            self.facts = self.facts.but(noted=False)

    def _pull(self) -> None:
        from shim.phase.progress import Progress

        assert self.daemon is not None
        daemon, name = self.daemon, self.name()
        progress = Progress(self.voice, name)
        try:
            daemon.pull(name, progress.tell)
            self.pulled = True
        except PullFailed as problem:
            self.pulled = False
            self.warn(f"{name} can't be pulled: {problem}")
        finally:
            progress.end()
        self.facts = self.facts.but(pull_tried=True)
        if self.pulled:
            self.settle(engine.Inquiry(lambda: daemon.image_id(name)))

    # Running the phase.

    def _run_restorer(self, row: Row) -> None:
        """Run the restorer with us as its parent, and make facts of how it ended and what it left."""
        assert self.before is not None
        again = self.runs > 0
        if again:
            self.warn(self.sentence(row))
        inquiries: list[Inquiry] = []

        def meanwhile() -> None:
            if row.verdict.step == "ask-name":
                inquiries.append(self.ask_for_name())

        argv, copy = self._arguments(row)
        self.ending = ending = self._run_phase(argv, copy, meanwhile)
        ended = ending.killed or (ending.interrupted and ending.code)  # such a one isn't run again
        self.facts = self.facts.but(
            status="killed" if ended else "failed" if ending.code else "ended-well",
            retried=again,
        )
        if self.facts.status == "ended-well" or (self.facts.status == "failed" and self.facts.build == "unsaid"):
            for inquiry in inquiries:
                self.settle(inquiry)
        try:
            self.now = after = analyzed.read(self.call.analyzed, self.call.rights)
        except (MissingFile, BrokenFile) as problem:
            self.detail = with_tip(problem)
            self.facts = self.facts.but(analyzed="missing" if isinstance(problem, MissingFile) else "broken")
            return
        self.facts = self.facts.but(
            reference=after.kind,
            rewritten=after.reference != self.before.reference,
            touched=after.data != self.before.data,
        )

    def _run_phase(self, argv: tuple[str, ...], copy: files.Copy | None, meanwhile: Callable[[], None]) -> Ending:
        """Run the phase with us as its parent, and take the copy of its group.toml away afterwards."""
        try:
            ending = process.run(self.path, argv, self.call.environ, meanwhile)
        except CannotStart as problem:  # becoming it takes no more room than the bare phase
            self.warn(f"{with_tip(problem)}; becoming the {self.call.phase}, which nothing is put right after")
            process.become(self.path, argv, self.call.environ)
        finally:
            if copy:
                copy.remove()
        self.runs += 1
        return ending

    def _arguments(self, row: Row) -> tuple[tuple[str, ...], files.Copy | None]:
        """Return the phase's arguments, and the copy of group.toml to remove afterwards, if there is one."""
        if row.verdict.lookup:
            return self.call.argv, None
        try:
            content = group.without_extensions(self.call.group, self.group_data)
            path = process.memory_file("group.toml", content)
            if path:
                return self.call.with_group(path), None
            copy = files.Copy("group.toml", content)
        except (BrokenFile, OSError) as problem:
            self.warn(f"the registry lookup can't be prevented: {problem}")
            return self.call.argv, None
        return self.call.with_group(copy.path), copy

    # Finishing.

    def _finish(self, row: Row) -> int:
        """Write, say it, and become the phase or return its status."""
        row = self._write(row)
        code = self.ending.code if self.ending else None
        try:
            if row.verdict.run == "refuse":
                tip = f"docker pull {self.name()}, or another --pull-policy"
                raise NotInDaemon(self.sentence(row), tip, row.verdict.outcome)
            if not code and self.settings.strict and row.verdict.outcome in policy.FAILING:
                tip = "leave out --strict to go on all the same"
                raise NotRepaired(self.sentence(row), tip, row.verdict.outcome)
        except ShimError as problem:
            self._report(row, problem.exit_code)
            raise
        if row.verdict.run == "nothing":
            assert code is not None
            self._tell(row)
            self._report(row, code)
            return code
        argv, copy = self._arguments(row)
        self._tell(row)
        if copy is None:
            self._report(row, None)
            process.become(self.path, argv, self.call.environ)
        self.ending = self._run_phase(argv, copy, lambda: None)
        self._report(row, self.ending.code)
        return self.ending.code

    def _write(self, row: Row) -> Row:
        """Do what is to be written; where that can't be, the row says so."""
        if row.verdict.write == "nothing":
            return row
        assert self.now is not None
        reference = self.id if row.verdict.write == "id" else self.name()
        assert reference
        try:
            analyzed.write_reference(self.now, reference, self.call.rights)
        except (EditRefused, MissingFile, BrokenFile) as problem:
            return self.unrepaired(row, problem)
        self.final = reference
        return row

    def _tell(self, row: Row) -> None:
        sentence = self.sentence(row)
        if row.verdict.level in ("warn", "error"):
            self.warnings.append(sentence)
        self.voice.say(row.verdict.level, f"{sentence}: {row.verdict.outcome}")

    def _report(self, row: Row, code: int | None) -> None:
        if self.settings.report is None:
            return
        from shim.phase.report import write_report

        current = self.now.reference if self.now else None
        report = self.report_of(
            row,
            phase=self.call.phase,
            certainty=policy.certainty(self.facts) if self.before else None,
            reference_before=self.before.reference if self.before else None,
            reference_after=current if self.runs else None,
            reference_final=self.final or current,
            pulled=self.pulled,
            command=tuple(self.call.argv),
            exit_code=code,
            runs=self.runs or None,
        )
        write_report(self.settings.report, self.voice, report, self.call.rights)
