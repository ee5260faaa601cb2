"""Wrap one phase: look, decide, write, say it, and exec the phase. Only an unknown build's restorer is a child."""

from __future__ import annotations

from collections.abc import Mapping

from shim import analyzed, files, group, policy, process, report, settings
from shim.analyzed import Analyzed
from shim.call import Call
from shim.daemon import Daemon
from shim.errors import FileProblem, ShimError, WriteRefused
from shim.log import Log
from shim.nothing import nothing_to_do
from shim.policy import Found, Row
from shim.settings import Settings


def wrap(call: Call, path: str, options: Mapping[str, str], log: Log) -> int:
    """Wrap a phase for which `path` is started, and return the exit code; if it is execed, this does not return.

    Raises ShimError: what ends in an error of the shim's own. Any other fault is said, and fails no build.
    """
    outcome, reason = nothing_to_do(call)
    # A bad variable must not fail a build that the shim has nothing to do with.
    chosen = settings.read(options, {} if outcome else call.environ)
    chosen = chosen._replace(report=options.get("report") or call.environ.get("ANALYZED_SHIM_REPORT", ""))
    wrapped = _Wrapped(call, path, chosen, log)
    try:
        if outcome:
            return wrapped.finish(policy.NOTHING_TO_DO._replace(outcome=outcome), detail=reason)
        return {"analyzer": wrapped.analyzer, "restorer": wrapped.restorer, "exporter": wrapped.exporter}[call.phase]()
    except ShimError:
        raise
    except Exception as problem:
        log.write("warn", f"internal error, please report it: {problem!r} (the {call.phase} is unaffected)")
        if wrapped.code is not None:
            return wrapped.code
        process.become(path, call.argv, call.environ)


def build_type(call: Call, chosen: Settings, log: Log) -> tuple[bool | None, str]:
    """Return whether this is a daemon build, and what that is known by; None: unknown."""
    note = None
    if chosen.daemon is None:
        try:
            note = group.read_note(call.note)
        except FileProblem as problem:
            log.write("warn", problem.with_tip)
    return policy.build_type(chosen.daemon, note, call.variables)


def daemon_of(call: Call, chosen: Settings) -> Daemon:
    """Return the daemon that the phase asks."""
    return Daemon(call.docker_host(chosen.docker_host), chosen.timeout, call.variables)


class _Wrapped:
    """One run of a phase."""

    def __init__(self, call: Call, path: str, chosen: Settings, log: Log) -> None:
        self._call = call
        self._path = path
        self._settings = chosen
        self._log = log
        self._daemon = daemon_of(call, chosen)
        self._before: Analyzed | None = None
        self._now: Analyzed | None = None
        self._build: tuple[bool | None, str] = None, ""
        self.code: int | None = None
        """The phase's exit status, if it was run as a child process."""

    def analyzer(self) -> int:
        """Leave the note for the restorer."""
        self._build = self._own_build()
        try:
            group.leave_note(self._call.note, self._call.is_for_daemon)
        except WriteRefused as problem:
            return self.finish(policy.NOT_NOTED, detail=problem.with_tip)
        return self.finish(policy.NOTED)

    def restorer(self) -> int:
        """Prevent the lookup in a known daemon build; see what it did in an unknown one."""
        call = self._call
        try:
            extensions, _ = files.read(call.group)
            if not group.has_extensions(call.group, extensions):
                return self.finish(policy.NOTHING_TO_DO, detail=f"no image extension in {call.group}")
            self._before = self._now = before = analyzed.read(call.analyzed)
        except FileProblem as problem:
            return self.finish(policy.UNREADABLE, detail=problem.with_tip)
        if before.target_os:
            return self.finish(policy.NOTHING_TO_DO, detail="run-image.target.os is set")
        self._build = build_type(call, self._settings, self._log)
        row, found = policy.restorer(bool(before.image), self._build[0], before.name, self._daemon.look)
        row = policy.filled(row, before.reference, before.image)
        detail = ""
        if row.child:
            row, found, detail = self._run_restorer(row, before)
        return self.finish(row, found, extensions, detail)

    def exporter(self) -> int:
        """Make the final check in a daemon build."""
        try:
            self._before = self._now = before = analyzed.read(self._call.analyzed)
        except FileProblem as problem:
            return self.finish(policy.UNREADABLE, detail=problem.with_tip)
        if not before.image:
            return self.finish(policy.NOTHING_TO_DO, detail="no extension switched the run image")
        self._build = self._own_build()
        row, found = policy.exporter(before.reference, before.image, self._daemon.look)
        return self.finish(policy.filled(row, before.reference, before.image), found)

    def _own_build(self) -> tuple[bool, str]:
        by_variable = self._call.is_for_daemon and "daemon" not in self._call.flags
        return self._call.is_for_daemon, "CNB_USE_DAEMON" if by_variable else "-daemon"

    def _run_restorer(self, row: Row, before: Analyzed) -> tuple[Row, Found, str]:
        """Run the restorer as a child process; return what is left to do, the daemon's answer, and a detail."""
        row, detail = self._write(row, policy.UNASKED)
        row = row._replace(write="")
        try:
            ending = process.run(self._path, self._call.argv, self._call.environ)
        except OSError as problem:  # an exec takes no more room than the bare phase
            row = policy.NOT_WRITTEN._replace(fails=False)
            return row, policy.UNASKED, f"no process can be started ({problem.strerror}); execing it"
        self.code = ending.code
        was = self._now or before
        try:
            self._now = now = analyzed.read(self._call.analyzed)
        except FileProblem as problem:
            return policy.UNREADABLE, policy.UNASKED, problem.with_tip
        if ending.code and not (ending.failed_by_itself and files.identity(now.about) == files.identity(was.about)):
            return policy.FAILED, policy.UNASKED, str(ending)
        failed = bool(ending.code)
        decided, found = policy.after_restorer(failed, was.reference, now.reference, before.name, self._daemon.look)
        return (row if decided is policy.UNKNOWN else decided), found, str(ending) if failed else detail

    def finish(self, row: Row, found: Found = policy.UNASKED, extensions: bytes = b"", detail: str = "") -> int:
        """Write what a row needs and say it; exec the phase, or return its exit status if it has run."""
        call = self._call
        argv, environ, detail = call.argv, call.environ, detail or found.detail
        if not row.lookup:
            try:
                group.leave_group(call.note, call.group, extensions)
                argv, environ = call.without_lookup(call.note)
            except WriteRefused as problem:
                row, detail = policy.NOT_WRITTEN, f"{problem.with_tip}, so the restorer asks the registry"
        left = self._now.reference if self._now else ""
        row, detail = self._write(row, found, detail)
        runs_now = self.code is None or not row.lookup
        code = None if runs_now else self.code
        after = self._now.reference if self._now else ""
        facts = report.Facts(call, self._build, self._before, left, after, self._daemon.address, code)
        sentence = report.conclude(row, found, detail, facts, self._settings, self._log)
        self._log.write(row.level, sentence, row.outcome)
        if runs_now:
            process.become(self._path, argv, environ)
        assert self.code is not None
        return self.code

    def _write(self, row: Row, found: Found, detail: str = "") -> tuple[Row, str]:
        """Write the reference that a row says; return the row and the detail that tell what came of it."""
        if not row.write or self._now is None:
            return row, detail
        try:
            self._now = analyzed.write_reference(self._now, found.image_id if row.write == "id" else self._now.name)
        except (WriteRefused, FileProblem) as problem:
            kept = row is policy.DAEMON_BUILD  # the exporter resolves a name that stays
            return policy.DAEMON_OUT_OF_REACH if kept else policy.NOT_WRITTEN, problem.with_tip
        return row, detail
