"""Looking: the facts of one call, gathered without running anything, and what they stand for.

No more is read or asked than the rows need.
"""

from __future__ import annotations

import time

from shim.daemon import client as engine
from shim.errors import BrokenFile, MissingFile, ShimError, Unreachable
from shim.layers import analyzed, files, group, note
from shim.policy import rows as policy
from shim.policy.facts import Clues, Facts

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from shim.daemon.client import About, Address, Daemon, Inquiry
    from shim.layers.analyzed import Analyzed
    from shim.phase.invocation import Invocation
    from shim.phase.log import Voice
    from shim.phase.process import Ending
    from shim.phase.report import Report
    from shim.phase.settings import Settings
    from shim.policy.rows import Row

_SHORT = 12
"""Hex digits of an ID in a sentence, as docker shows them."""


class Look:
    """What is known of one call so far."""

    def __init__(self, call: Invocation, chosen: Settings, speaker: Voice) -> None:
        """Begin with what the call itself says."""
        self.began = time.monotonic()
        self.call = call
        self.settings = chosen
        self.voice = speaker
        self.facts = Facts(phase=call.phase, about=call.about, api=call.api)
        self.note = note.path_beside(call.analyzed)
        self.before: Analyzed | None = None
        """analyzed.toml as it was found."""
        self.now: Analyzed | None = None
        """analyzed.toml as it is."""
        self.group_data = b""
        self.by = ""
        """What says which build it is."""
        self.detail = ""
        """What is the matter, for the sentence."""
        self.address: Address | None = None
        self.daemon: Daemon | None = None
        self.id: str | None = None
        """The daemon's image of the run image's name: 64 hex digits."""
        self.ending: Ending | None = None
        self.warnings: list[str] = []
        self._waited = 0.0
        """Seconds that the daemon's answers took."""

    def look(self) -> None:
        """Gather what can be known of a restorer's or an exporter's call without asking the daemon."""
        if self.call.phase == "restorer" and not self._group_has_extensions():
            return
        try:
            self.before = self.now = found = analyzed.read(self.call.analyzed, self.call.rights)
        except (MissingFile, BrokenFile) as problem:
            self.facts = self.facts.but(analyzed="missing" if isinstance(problem, MissingFile) else "broken")
            self.detail = with_tip(problem)
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
            self.group_data, _ = files.read(path, rights=self.call.rights)
            self.facts = self.facts.but(extensions=group.has_extensions(path, self.group_data))
        except (MissingFile, BrokenFile) as problem:
            self.facts = self.facts.but(group="missing" if isinstance(problem, MissingFile) else "broken")
            self.detail = with_tip(problem)
        return self.facts.group == "readable" and self.facts.extensions

    def _look_at_restorer(self, found: Analyzed) -> None:
        evidence = policy.weigh(self.clues(found))
        self.by = evidence.by
        self.facts = self.facts.but(build=evidence.build, policy=self.settings.policy or "if-not-present")
        if evidence.build != "registry":
            self.find_engine()

    def clues(self, found: Analyzed) -> Clues:
        """Return what may tell which build it is."""
        try:
            left = note.read(self.note, self.call.rights)
        except BrokenFile as problem:
            left = None
            self.warn(with_tip(problem))
        return Clues(
            option=self.settings.daemon,
            note=left,
            marker=found.marker,
            use_daemon=self.call.variable("CNB_USE_DAEMON"),
            use_layout=self.call.variable("CNB_USE_LAYOUT"),
            previous=found.previous,
            policy_given=self.settings.policy is not None,
        )

    def _look_at_exporter(self) -> None:
        self.by = "CNB_USE_DAEMON" if self.call.daemon is None else "-daemon"
        self.facts = self.facts.but(build="daemon" if self.call.is_for_daemon else "registry")
        if self.facts.build == "daemon" and self.facts.reference in ("digest", "empty"):
            self.find_engine()

    def find_engine(self) -> None:
        """Make a fact of whether there is a daemon to ask."""
        self.address = engine.find(self.settings.docker_host, self.call.environ)
        self.detail = self.address.detail
        self.facts = self.facts.but(engine=self.address.state)

    def ask_for_name(self) -> Inquiry:
        """Begin to ask the daemon for the run image's name."""
        assert self.address is not None and self.before is not None
        address, name = self.address, self.name()

        def ask() -> str | None:
            self.daemon = engine.Daemon(address, self.settings.timeout, self.call.environ)
            return self.daemon.image_id(name)

        return engine.Inquiry(ask)

    def answer(self, inquiry: Inquiry) -> Any:
        """Return an answer, if it comes in what is left of the time limit, which is for all answers together.

        Raises:
            Unreachable: it doesn't, or can't be used.

        """
        try:
            return inquiry.answer(self.settings.timeout - self._waited)
        finally:
            self._waited += inquiry.took()

    def ask(self, question: Callable[[], Any]) -> Any:
        """Ask, and return the answer.

        Raises:
            Unreachable: as by `answer`.

        """
        return self.answer(engine.Inquiry(question))

    def settle(self, inquiry: Inquiry) -> None:
        """Make a fact of the answer about the name."""
        try:
            self.id = self.answer(inquiry)
        except Unreachable as problem:
            self.detail = with_tip(problem)
            self.facts = self.facts.but(engine="silent")
        else:
            if self.id is None:
                self.detail = f"{self.name()} isn't in the daemon"
            self.facts = self.facts.but(engine="lacks" if self.id is None else "has")

    def ask_for_reference(self) -> None:
        """Make a fact of what the daemon has under the reference."""
        assert self.daemon is not None and self.now is not None
        daemon, reference = self.daemon, self.now.reference
        try:
            found = self.ask(lambda: daemon.image_id(reference))
        except Unreachable as problem:
            self.detail = with_tip(problem)
            self.facts = self.facts.but(resolves="silent")
        else:
            self.facts = self.facts.but(
                resolves="nowhere" if found is None else "same" if found == self.id else "other"
            )

    def report_of(self, row: Row, **more: Any) -> Report:
        """Return a report of what is known, and of what else is given."""
        from shim.phase.report import Report  # only for those who ask for one

        return Report(
            platform_api=self.call.platform_api,
            outcome=row.verdict.outcome,
            row=row.number,
            reason=self.sentence(row),
            warnings=tuple(self.warnings),
            run_image=self.name() or None,
            build=None if self.facts.build == "unsaid" else self.facts.build,
            evidence=self.by or None,
            image_id=self.id,
            engine=self.about_engine(),
            seconds=round(time.monotonic() - self.began, 3),
            **more,
        )

    def about_engine(self) -> About | None:
        """Ask the daemon what it is, if it answered before."""
        if self.daemon is None or "silent" in (self.facts.engine, self.facts.resolves):  # it had its time
            return None
        try:
            about: About = self.ask(self.daemon.about)
        except Unreachable:
            return None
        return about

    def warn(self, sentence: str) -> None:
        """Say a warning, and keep it for the report."""
        self.warnings.append(sentence)
        self.voice.say("warn", sentence)

    def unrepaired(self, row: Row, problem: ShimError) -> Row:
        """Return the row with what came of it: what it should have written couldn't be."""
        self.detail = with_tip(problem)
        verdict = row.verdict.but(outcome="unrepaired", level="warn")
        return row.but(verdict=verdict, because="{problem}; run-image.reference should be {wanted}")

    def sentence(self, row: Row) -> str:
        """Return a row's reason, filled in."""
        before, now = self.before, self.now
        return row.because.format(
            phase=self.call.phase,
            api=self.call.platform_api or "unset",
            analyzed=self.call.analyzed,
            group=self.call.group,
            note=self.note,
            build="a daemon build" if self.facts.build == "daemon" else "no daemon build",
            by=self.by,
            name=self.name(),
            id=(self.id or "")[:_SHORT],
            before=before.reference if before else "",
            after=now.reference if now else "",
            wanted=self.id if row.verdict.write == "id" else self.name(),
            status=self.ending,
            detail=self.detail,
            problem=self.detail,
        )

    def name(self) -> str:
        """Return the run image's name: `run-image.image`, else the reference as it was found."""
        return self.before.image or self.before.reference if self.before else ""


def with_tip(problem: ShimError) -> str:
    """Return what is wrong and what to do about it, in one sentence."""
    return f"{problem} ({problem.tip})" if problem.tip else str(problem)
