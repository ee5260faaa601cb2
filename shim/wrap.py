"""The story of one wrapped phase: look, decide, ask or run, decide again; then write, say, pass the status on."""

from __future__ import annotations

import os
import time

from shim import analyzed, engine, files, group, invocation, note, policy, process, settings
from shim.errors import (
    BrokenFile,
    CannotRun,
    EditRefused,
    MissingFile,
    NotInDaemon,
    NotRepaired,
    NotThere,
    PullFailed,
    ShimError,
    Unreachable,
    WrongUse,
)
from shim.model import Clues, Facts
from shim.say import voice

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from shim.analyzed import Analyzed
    from shim.engine import About, Address, Daemon, Inquiry
    from shim.invocation import Invocation
    from shim.policy import Row
    from shim.process import Ending

_SHORT = 12
"""Hex digits of an ID in a sentence, as docker shows them."""
_FAILING = ("unrepaired", "not-in-daemon")
"""The outcomes that `--strict` makes an error of."""


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
    """Run, and say what goes wrong in one line."""
    try:
        return begin().run()
    except ShimError as problem:
        voice(call.environ, call.flags).say("error", _with_tip(problem))
        return problem.exit_code


class _Run:
    """One run: the facts so far, and what they stand for."""

    def __init__(self, call: Invocation, options: Mapping[str, str]) -> None:
        self.began = time.monotonic()
        self.call = call
        self.voice = voice(call.environ, call.flags)
        self.path = process.find(call.program, call.environ)
        self.facts = Facts(phase=call.phase, about=call.about, api=call.api)
        self.affected = call.phase != "other" and not call.about and call.api == "affected"
        self.settings = settings.read(options, call.environ, only_report=not self.affected)
        self.note = note.path_beside(call.analyzed)
        self.before: Analyzed | None = None
        self.now: Analyzed | None = None
        self.group_data = b""
        self.by = ""
        self.detail = ""
        self.address: Address | None = None
        self.daemon: Daemon | None = None
        self.id: str | None = None
        self.pulled: bool | None = None
        self.ending: Ending | None = None
        self.runs = 0
        self.final: str | None = None
        self.warnings: list[str] = []

    def run(self) -> int:
        """Decide and do until nothing is left to ask or to run, then finish."""
        if self.affected:
            self._look()
        while True:
            row = policy.decide(self.facts)
            if row.verdict.run == "parent":
                self._run_restorer(row)
            elif row.verdict.step == "ask-name":
                self._settle(self._ask_for_name())
            elif row.verdict.step == "ask-reference":
                self._ask_for_reference()
            elif row.verdict.step == "pull":
                self._pull()
            else:
                return self._finish(row)

    # Looking, at no more than the rows need.

    def _look(self) -> None:
        if self.call.phase == "analyzer":
            self._leave_note()
            return
        if self.call.phase == "restorer" and not self._group_has_extensions():
            return
        try:
            self.before = self.now = found = analyzed.read(self.call.analyzed)
        except (MissingFile, BrokenFile) as problem:
            self.facts = self.facts.but(analyzed="missing" if isinstance(problem, MissingFile) else "broken")
            self.detail = _with_tip(problem)
            return
        self.facts = self.facts.but(
            run_image=found.run_image,
            target=bool(found.target_os),
            extend=found.extend,
            image=bool(found.image),
            reference=found.kind,
        )
        if found.image and self.call.phase == "exporter":
            self._look_at_exporter()
        elif found.image and not found.target_os and not found.extend:
            self._look_at_restorer(found)

    def _group_has_extensions(self) -> bool:
        path = self.call.group
        try:
            self.group_data, _ = files.read(path)
            self.facts = self.facts.but(extensions=group.has_extensions(path, self.group_data))
        except (MissingFile, BrokenFile) as problem:
            self.facts = self.facts.but(group="missing" if isinstance(problem, MissingFile) else "broken")
            self.detail = _with_tip(problem)
        return self.facts.group == "readable" and self.facts.extensions

    def _look_at_restorer(self, found: Analyzed) -> None:
        try:
            left = note.read(self.note)
        except BrokenFile as problem:
            left = None
            self._warn(_with_tip(problem))
        evidence = policy.weigh(
            Clues(
                option=self.settings.daemon,
                note=left,
                marker=found.marker,
                use_daemon=self.call.variable("CNB_USE_DAEMON"),
                use_layout=self.call.variable("CNB_USE_LAYOUT"),
                previous=found.previous,
                policy_given=self.settings.policy is not None,
            )
        )
        self.by = evidence.by
        self.facts = self.facts.but(build=evidence.build, policy=self.settings.policy or "if-not-present")
        if evidence.build != "registry":
            self._find_engine()

    def _look_at_exporter(self) -> None:
        self.by = "CNB_USE_DAEMON" if self.call.daemon is None else "-daemon"
        self.facts = self.facts.but(build="daemon" if self.call.is_for_daemon else "registry")
        if self.facts.build == "daemon" and self.facts.reference in ("digest", "empty"):
            self._find_engine()

    def _find_engine(self) -> None:
        self.address = engine.find(self.settings.docker_host, self.call.environ)
        self.detail = self.address.detail
        self.facts = self.facts.but(engine=self.address.state)

    def _leave_note(self) -> None:
        daemon = self.call.is_for_daemon
        self.by = "its flags and environment"
        self.facts = self.facts.but(build="daemon" if daemon else "registry")
        try:
            note.leave(self.note, daemon)
        except OSError as problem:
            self.detail = f"{self.note} can't be written: {problem.strerror}"
            self.facts = self.facts.but(noted=False)

    # Asking the daemon.

    def _ask_for_name(self) -> Inquiry:
        assert self.address is not None and self.before is not None
        address, name = self.address, self.before.image

        def ask() -> str | None:
            self.daemon = engine.Daemon(address, self.settings.timeout, self.call.environ)
            return self.daemon.image_id(name)

        return engine.Inquiry(ask, then=analyzed.prepare)

    def _settle(self, inquiry: Inquiry) -> None:
        """Make a fact of the answer about the name."""
        try:
            self.id = inquiry.answer(self.settings.timeout)
        except Unreachable as problem:
            self.detail = _with_tip(problem)
            self.facts = self.facts.but(engine="silent")
        else:
            if self.id is None:
                self.detail = f"{self._name()} isn't in the daemon"
            self.facts = self.facts.but(engine="lacks" if self.id is None else "has")

    def _ask_for_reference(self) -> None:
        assert self.daemon is not None and self.now is not None
        daemon, reference = self.daemon, self.now.reference
        try:
            found = engine.Inquiry(lambda: daemon.image_id(reference)).answer(self.settings.timeout)
        except Unreachable as problem:
            self.detail = _with_tip(problem)
            self.facts = self.facts.but(resolves="silent")
        else:
            self.facts = self.facts.but(
                resolves="nowhere" if found is None else "same" if found == self.id else "other"
            )

    def _pull(self) -> None:
        from shim.progress import Progress

        assert self.daemon is not None
        daemon, name = self.daemon, self._name()
        progress = Progress(self.voice, name)
        try:
            daemon.pull(name, progress.tell)
            self.pulled = True
        except PullFailed as problem:
            self.pulled = False
            self._warn(f"{name} can't be pulled: {problem}")
        finally:
            progress.end()
        self.facts = self.facts.but(pull_tried=True)
        if self.pulled:
            self._settle(engine.Inquiry(lambda: daemon.image_id(name)))

    # Running the phase.

    def _run_restorer(self, row: Row) -> None:
        """Run the restorer with us as its parent, and make facts of how it ended and what it left."""
        assert self.before is not None
        again = self.runs > 0
        if again:
            self._warn(self._sentence(row))
        inquiries: list[Inquiry] = []

        def meanwhile() -> None:
            if row.verdict.step == "ask-name":
                inquiries.append(self._ask_for_name())

        argv, copy = self._arguments(row)
        try:
            self.ending = process.run(self.path, argv, self.call.environ, meanwhile)
        finally:
            if copy:
                files.remove_copy(copy)
        self.runs += 1
        self.facts = self.facts.but(
            status="killed" if self.ending.killed else "failed" if self.ending.code else "ended-well",
            retried=again,
        )
        try:
            self.now = after = analyzed.read(self.call.analyzed)
        except (MissingFile, BrokenFile) as problem:
            self.detail = _with_tip(problem)
            self.facts = self.facts.but(analyzed="missing" if isinstance(problem, MissingFile) else "broken")
            return
        self.facts = self.facts.but(
            reference=after.kind,
            rewritten=after.reference != self.before.reference,
            touched=after.data != self.before.data,
        )
        for inquiry in inquiries:
            self._settle(inquiry)

    def _arguments(self, row: Row) -> tuple[tuple[str, ...], str | None]:
        """Return the phase's arguments, and the copy of group.toml to remove afterwards, if there is one."""
        if row.verdict.lookup:
            return self.call.argv, None
        try:
            content = group.without_extensions(self.call.group, self.group_data)
            path = process.memory_file("group.toml", content)
            if path:
                return self.call.with_group(path), None
            copy = files.copy_for_all("group.toml", content)
        except (BrokenFile, OSError) as problem:
            self._warn(f"the registry lookup can't be prevented: {problem}")
            return self.call.argv, None
        return self.call.with_group(copy), copy

    # Finishing.

    def _finish(self, row: Row) -> int:
        """Write, say it, and become the phase or return its status."""
        argv, copy = self._arguments(row)
        row = self._write(row)
        code = self.ending.code if self.ending else None
        try:
            if row.verdict.run == "refuse":
                raise NotInDaemon(self._sentence(row), f"docker pull {self._name()}, or another --pull-policy")
            if not code and self.settings.strict and row.verdict.outcome in _FAILING:
                raise NotRepaired(self._sentence(row), "leave out --strict to go on all the same")
        except ShimError as problem:
            self._report(row, problem.exit_code)
            raise
        if row.verdict.run == "nothing":
            assert code is not None
            self._tell(row)
            self._report(row, code)
            return code
        self._tell(row)
        if copy is None:
            self._report(row, None)
            process.become(self.path, argv, self.call.environ)
        try:
            self.ending = process.run(self.path, argv, self.call.environ, lambda: None)
        finally:
            files.remove_copy(copy)
        self.runs += 1
        self._report(row, self.ending.code)
        return self.ending.code

    def _write(self, row: Row) -> Row:
        """Do what is to be written; where that can't be, the row says so."""
        if row.verdict.write == "nothing":
            return row
        assert self.now is not None
        reference = self.id if row.verdict.write == "id" else self._name()
        assert reference
        try:
            analyzed.write_reference(self.now, reference)
        except (EditRefused, MissingFile, BrokenFile) as problem:
            self.detail = _with_tip(problem)
            return row.but(
                verdict=row.verdict.but(outcome="unrepaired", level="warn"),
                because="{problem}; run-image.reference should be {wanted}",
            )
        self.final = reference
        return row

    def _tell(self, row: Row) -> None:
        sentence = self._sentence(row)
        if row.verdict.level in ("warn", "error"):
            self.warnings.append(sentence)
        self.voice.say(row.verdict.level, f"{sentence}: {row.verdict.outcome}")

    def _warn(self, sentence: str) -> None:
        self.warnings.append(sentence)
        self.voice.say("warn", sentence)

    def _sentence(self, row: Row) -> str:
        before, now = self.before, self.now
        return row.because.format(
            phase=self.call.phase,
            api=self.call.platform_api or "unset",
            analyzed=self.call.analyzed,
            group=self.call.group,
            note=self.note,
            build="a daemon build" if self.facts.build == "daemon" else "no daemon build",
            by=self.by,
            name=self._name(),
            id=(self.id or "")[:_SHORT],
            before=before.reference if before else "",
            after=now.reference if now else "",
            wanted=self.id if row.verdict.write == "id" else self._name(),
            status=self.ending,
            detail=self.detail,
            problem=self.detail,
        )

    def _name(self) -> str:
        return self.before.image or self.before.reference if self.before else ""

    def _report(self, row: Row, code: int | None) -> None:
        if self.settings.report is None:
            return
        from shim.report import Report, as_json

        before, now = self.before, self.now
        current = now.reference if now else None
        report = Report(
            phase=self.call.phase,
            platform_api=self.call.platform_api,
            outcome=row.verdict.outcome,
            row=row.number,
            reason=self._sentence(row),
            warnings=tuple(self.warnings),
            run_image=self._name() or None,
            build=None if self.facts.build == "unsaid" else self.facts.build,
            certainty=policy.certainty(self.facts) if before else None,
            evidence=self.by or None,
            reference_before=before.reference if before else None,
            reference_after=current if self.runs else None,
            reference_final=self.final or current,
            image_id=self.id,
            pulled=self.pulled,
            engine=self._about_engine(),
            command=tuple(self.call.argv),
            exit_code=code,
            runs=self.runs or None,
            seconds=round(time.monotonic() - self.began, 3),
        )
        path = self.settings.report.replace("{phase}", self.call.phase)
        try:
            with open(path, "w", encoding="utf-8") as file:
                file.write(as_json(report))
        except (OSError, ValueError) as problem:
            self.voice.say("warn", f"the report can't be written to {path}: {problem}")

    def _about_engine(self) -> About | None:
        if self.daemon is None or self.facts.engine not in ("has", "lacks"):
            return None
        try:
            return self.daemon.about()
        except Unreachable:
            return None


def _with_tip(problem: ShimError) -> str:
    return f"{problem} ({problem.tip})" if problem.tip else str(problem)
