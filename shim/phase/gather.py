"""What is known of one call before anything is run or the daemon is asked. No more is read than the rows need."""

from __future__ import annotations

import os

from shim.daemon.find import find
from shim.daemon.session import Session
from shim.errors import BrokenFile, MissingFile, Unreachable
from shim.layers import analyzed, files, group, note
from shim.policy.evidence import Clues, weigh
from shim.policy.facts import Facts
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from shim.daemon.session import Inquiry
    from shim.errors import ShimError
    from shim.layers.analyzed import Analyzed
    from shim.phase.invocation import Invocation
    from shim.phase.log import Log
    from shim.phase.process import Ending
    from shim.phase.settings import Settings
    from shim.policy.row import End, Step

_SHORT = 12
"""Hex digits of an ID in a sentence, as docker shows them."""


class Seen(Record):
    """What was found so far: the facts, and the strings behind them."""

    facts: Facts
    before: Analyzed | None = None
    """analyzed.toml as it was found."""
    now: Analyzed | None = None
    """analyzed.toml as it is."""
    group: bytes = b""
    """group.toml."""
    evidence: str = ""
    """What the build type is known by."""
    detail: str = ""
    """What the matter is, for the sentence."""
    session: Session | None = None
    """The daemon that the phase would ask, if it was looked for."""
    image_id: str | None = None
    """The daemon's image of the run image's name: 64 hex digits."""
    left: str | None = None
    """`run-image.reference` as the restorer left it."""
    pulled: bool | None = None
    ending: Ending | None = None
    """How the restorer ended last."""
    runs: int = 0

    @property
    def name(self) -> str:
        """The run image's name: `run-image.image`, else the reference as it was found."""
        return self.before.image or self.before.reference if self.before else ""


def gather(call: Invocation, chosen: Settings, log: Log) -> Seen:
    """Return what can be known of a call without asking the daemon."""
    seen = Seen(facts=Facts(phase=call.phase, about=call.about, api=call.api, named=call.named))
    if call.about or call.api != "affected" or call.phase == "other":
        return seen
    if os.path.realpath(call.root) != "/":
        detail = f"the phase runs below {call.root}, where the shim doesn't look (run the shim below it too)"
        return seen.but(facts=seen.facts.but(analyzed="broken", noted=False), detail=detail)
    if call.phase == "analyzer":
        return _at_the_analyzer(seen, call)
    if call.phase == "restorer":
        seen = _with_group(seen, call)
        if seen.facts.group != "readable" or not seen.facts.extensions:
            return seen
    seen = with_analyzed(seen, call)
    if seen.before is None or not seen.before.image:
        return seen
    if call.phase == "exporter":
        return _at_the_exporter(seen, call, chosen)
    return seen if seen.facts.target else _at_the_restorer(seen, call, chosen, log)


def _with_group(seen: Seen, call: Invocation) -> Seen:
    try:
        data, _ = files.read(call.group, rights=call.rights)
        extensions = group.has_extensions(call.group, data)
    except (MissingFile, BrokenFile) as problem:
        return seen.but(facts=seen.facts.but(group=_state_of(problem)), detail=problem.with_tip)
    return seen.but(facts=seen.facts.but(extensions=extensions), group=data)


def with_analyzed(seen: Seen, call: Invocation) -> Seen:
    """Return what is known after analyzed.toml was read."""
    try:
        found = analyzed.read(call.analyzed, call.rights)
    except (MissingFile, BrokenFile) as problem:
        return seen.but(facts=seen.facts.but(analyzed=_state_of(problem)), detail=problem.with_tip)
    facts = seen.facts.but(
        run_image=found.run_image, target=bool(found.target_os), image=bool(found.image), reference=found.kind
    )
    return seen.but(facts=facts, before=found, now=found)


def _state_of(problem: ShimError) -> str:
    return "missing" if isinstance(problem, MissingFile) else "broken"


def _at_the_analyzer(seen: Seen, call: Invocation) -> Seen:
    """Leave the note: that is all there is to do, and needs nothing to be decided."""
    path, daemon = note.path_beside(call.analyzed), call.is_for_daemon
    seen = seen.but(facts=seen.facts.but(build="daemon" if daemon else "registry"), evidence="-daemon")
    try:
        note.leave(path, daemon, call.rights)
    except OSError as problem:
        return seen.but(facts=seen.facts.but(noted=False), detail=f"{path} can't be written: {problem.strerror}")
    return seen


def _at_the_restorer(seen: Seen, call: Invocation, chosen: Settings, log: Log) -> Seen:
    build, by = weigh(clues(seen, call, chosen, log))
    seen = seen.but(facts=seen.facts.but(build=build, pull_policy=chosen.policy or "if-not-present"), evidence=by)
    return seen if build == "registry" else with_daemon(seen, call, chosen)


def clues(seen: Seen, call: Invocation, chosen: Settings, log: Log) -> Clues:
    """Return what may indicate the build type."""
    assert seen.before is not None
    try:
        left = note.read(note.path_beside(call.analyzed), call.rights)
    except BrokenFile as problem:
        left = None
        log.write("warn", problem.with_tip)
    return Clues(
        option=chosen.daemon,
        note=left,
        marker=seen.before.marker,
        use_daemon=call.variable("CNB_USE_DAEMON"),
        use_layout=call.variable("CNB_USE_LAYOUT"),
        previous=seen.before.previous,
        policy_given=chosen.policy is not None,
    )


def _at_the_exporter(seen: Seen, call: Invocation, chosen: Settings) -> Seen:
    daemon = call.is_for_daemon
    by = "-daemon" if "daemon" in call.flags else "CNB_USE_DAEMON"
    seen = seen.but(facts=seen.facts.but(build="daemon" if daemon else "registry"), evidence=by)
    asks = daemon and seen.facts.reference in ("digest", "empty")
    return with_daemon(seen, call, chosen) if asks else seen


def with_daemon(seen: Seen, call: Invocation, chosen: Settings) -> Seen:
    """Return what is known after looking for a daemon that can be asked."""
    address = find(chosen.docker_host, call.variables)
    session = Session(address, chosen.timeout, call.variables)
    return seen.but(facts=seen.facts.but(daemon=address.state), session=session, detail=address.detail)


def ask_for_name(seen: Seen) -> Inquiry:
    """Begin to ask the daemon for the run image's name."""
    assert seen.session is not None
    return seen.session.begin(lambda daemon: daemon.image(seen.name))


def with_image(seen: Seen, question: Inquiry | None = None) -> Seen:
    """Return what is known after the daemon was asked for the name; the question may have begun before."""
    assert seen.session is not None
    try:
        found = seen.session.answer(question or ask_for_name(seen))
    except Unreachable as problem:
        return seen.but(facts=seen.facts.but(daemon="silent"), detail=problem.with_tip)
    if found.id is None:
        return seen.but(facts=seen.facts.but(daemon="lacks"), detail=found.detail)
    return seen.but(facts=seen.facts.but(daemon="has"), image_id=found.id)


def with_what_was_left(seen: Seen, call: Invocation) -> Seen:
    """Return what is known after the restorer ran."""
    assert seen.before is not None and seen.now is not None
    was = seen.now
    try:
        now = analyzed.read(call.analyzed, call.rights, known=was)
    except (MissingFile, BrokenFile) as problem:
        return seen.but(facts=seen.facts.but(analyzed=_state_of(problem)), detail=problem.with_tip)
    touched = (now.data, now.about.st_ino, now.about.st_mtime_ns) != (was.data, was.about.st_ino, was.about.st_mtime_ns)
    rewritten = now.reference != seen.before.reference
    facts = seen.facts.but(reference=now.kind, touched=touched, rewritten=rewritten)
    return seen.but(facts=facts, now=now, left=now.reference)


def ask(step: Step, seen: Seen) -> Seen:
    """Do a step that asks the daemon, and return what is known then."""
    return with_image(seen) if step.action == "ask-name" else _with_reference(seen)


def _with_reference(seen: Seen) -> Seen:
    """Return what is known after the daemon was asked for the reference as it is now."""
    assert seen.now is not None and seen.session is not None
    reference = seen.now.reference
    try:
        found = seen.session.ask(lambda daemon: daemon.image_id(reference))
    except Unreachable as problem:
        return seen.but(facts=seen.facts.but(resolves="silent"), detail=problem.with_tip)
    resolves = "nowhere" if found is None else "same" if found == seen.image_id else "other"
    return seen.but(facts=seen.facts.but(resolves=resolves))


def sentence(row: Step | End, seen: Seen, call: Invocation) -> str:
    """Return what a row says, filled in."""
    return row.says.format(
        phase=call.phase,
        api=call.platform_api or "(unset)",
        analyzed=call.analyzed,
        group=call.group,
        note=note.path_beside(call.analyzed),
        build=seen.facts.build,
        by=seen.evidence,
        name=seen.name,
        id=(seen.image_id or "")[:_SHORT],
        before=seen.before.reference if seen.before else "",
        after=seen.now.reference if seen.now else "",
        status=seen.ending,
        detail=seen.detail,
    )
