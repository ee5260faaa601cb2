"""`check`: what would happen to this build and why, and what is wrong with the set-up. It changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from shim import policy
from shim.daemon.elsewhere import elsewhere
from shim.daemon.platform import own_platform
from shim.daemon.session import Session
from shim.errors import Unreachable
from shim.phase.gather import gather, with_daemon, with_image
from shim.phase.invocation import WRAPPED
from shim.phase.log import Log
from shim.phase.report import SCHEMA
from shim.policy.evidence import certainty
from shim.record import Record, fields
from shim.tools.scenarios import scenario_of

if TYPE_CHECKING:
    from typing import Literal

    from shim.daemon.client import About
    from shim.phase.gather import Seen
    from shim.phase.invocation import Invocation
    from shim.phase.settings import Settings
    from shim.policy.row import Step
    from shim.tools.scenarios import Scenario, Version

    Severity = Literal["error", "warning", "note"]


class Finding(Record):
    """Something about the set-up, and what to do about it."""

    severity: Severity
    what: str
    do: str


class Checked(Record):
    """All that `check` found."""

    platform_api: str
    lifecycle: str | None
    """The phases' version; None if there is no binary to ask."""
    wrapped: tuple[str, ...]
    """The phases that have a drop-in."""
    build: str | None
    certainty: str | None
    evidence: str | None
    run_image: str | None
    reference: str | None
    image_id: str | None
    daemon: About | None
    scenario: str
    restorer: str
    """What the bare restorer does."""
    row: str
    outcome: str
    shim: str
    """What the shim does."""
    findings: tuple[Finding, ...]

    def as_values(self) -> dict[str, object]:
        """Return all as what JSON can hold; what is not known is left out."""
        values: dict[str, object] = {"schema": SCHEMA, "phase": "check"}
        values.update((name, value) for name, value in fields(self).items() if value is not None)
        if self.daemon is not None:
            values["daemon"] = fields(self.daemon)
        values["findings"] = [fields(finding) for finding in self.findings]
        return values


def check(call: Invocation, chosen: Settings, lifecycle: str, registry: bool) -> Checked:
    """Look at a build and its set-up.

    Args:
        call: a restorer's call that says where the files are and which Platform API it is.
        chosen: the shim's settings.
        lifecycle: the directory of the phases, which need not be there.
        registry: ask the registry too, through the daemon.

    """
    log = Log("error")
    seen = gather(call, chosen, log)
    if seen.session is None:
        seen = with_daemon(seen, call, chosen).but(detail=seen.detail)
    assert seen.session is not None
    asked = _asked(seen, seen.session)
    version = _version(lifecycle)
    scenario = scenario_of(seen.facts, version)
    foreseen = _Foreseen(asked, scenario)
    _, end = policy.settle(seen, foreseen)
    wrapped = tuple(phase for phase in WRAPPED if os.path.lexists(os.path.join(lifecycle, f"{phase}.real")))
    about = seen.session.about() if seen.session.answered else None
    sure = certainty(asked.facts)
    known = None if asked.facts.build == "unknown" else asked.facts.build
    findings = _Findings(call, asked, seen.session)
    findings.about_files(log.warnings)
    findings.about_daemon(about)
    findings.about_installation(wrapped, version)
    if registry and asked.before is not None and asked.before.image and asked.facts.daemon in ("has", "lacks"):
        findings.about_registry(chosen.timeout)
    return Checked(
        platform_api=call.platform_api,
        lifecycle=".".join(map(str, version)) if version else None,
        wrapped=wrapped,
        build=known or ("daemon" if sure == "likely" else None),
        certainty=sure if asked.before else None,
        evidence=asked.evidence or ("the daemon" if sure == "likely" else None),
        run_image=asked.name or None,
        reference=asked.before.reference if asked.before else None,
        image_id=asked.image_id,
        daemon=about,
        scenario=scenario.name,
        restorer=scenario.restorer,
        row=end.name,
        outcome=end.outcome,
        shim="; ".join((*foreseen.done, end.does)),
        findings=tuple(findings.found),
    )


def _asked(seen: Seen, session: Session) -> Seen:
    """Return what is known after the daemon was asked, if there is one: for the name, or only whether it answers."""
    if seen.facts.daemon != "unasked":
        return seen
    if seen.name:
        return with_image(seen)
    try:
        session.ask(lambda _: None)
    except Unreachable as problem:
        return seen.but(facts=seen.facts.but(daemon="silent"), detail=problem.with_tip)
    return seen


class _Foreseen:
    """The world in which nothing is run: the restorer does what its scenario says, and a pull works."""

    def __init__(self, asked: Seen, scenario: Scenario) -> None:
        self._asked = asked
        self._scenario = scenario
        self.done: list[str] = []

    def do(self, step: Step, seen: Seen) -> Seen:
        """Return what would be known after a step."""
        self.done.append(step.does)
        answer = self._asked.facts.daemon
        if step.action == "ask-name":
            return seen.but(facts=seen.facts.but(daemon=answer), image_id=self._asked.image_id)
        if step.action == "pull":
            return seen.but(facts=seen.facts.but(daemon="has", pull_tried=True))
        if step.action == "ask-reference":
            return seen.but(facts=seen.facts.but(resolves="nowhere"))
        rewrites = step.lookup and self._scenario.name == "rewrite"
        facts = seen.facts.but(
            run="as-called" if step.lookup else "without-lookup",
            status="succeeded",
            touched=True,
            rewritten=rewrites,
            reference="digest" if rewrites else seen.facts.reference,
        )
        return seen.but(facts=facts.but(daemon=answer) if step.asks else facts, image_id=self._asked.image_id)


class _Findings:
    """What is wrong, collected."""

    def __init__(self, call: Invocation, asked: Seen, session: Session) -> None:
        self._call = call
        self._seen = asked
        self._session = session
        self.found: list[Finding] = []

    def _find(self, severity: Severity, what: str, do: str) -> None:
        self.found.append(Finding(severity=severity, what=what, do=do))

    def about_files(self, warnings: list[str]) -> None:
        facts, call = self._seen.facts, self._call
        if "broken" in (facts.group, facts.analyzed):
            self._find("error", self._seen.detail, "the restorer can't read it either: rerun the preceding phase")
        for warning in warnings:
            self._find("warning", warning, "let the wrapped analyzer write the note again")
        if "missing" in (facts.analyzed, facts.group):
            path = call.group if facts.group == "missing" else call.analyzed
            self._find(
                "warning", f"{path} not found", "run check between the detector and the restorer, or pass --layers"
            )
        elif facts.analyzed == "readable" and not facts.run_image:
            self._find("error", f"{call.analyzed} has no [run-image]", "see what the analyzer said")
        if facts.api == "unset":
            self._find("warning", "CNB_PLATFORM_API is not set", "pass --platform-api as the platform does")
        if "build-image" in call.flags or call.variables.get("CNB_BUILD_IMAGE"):
            self._find(
                "note",
                "given -build-image, the restorer asks the registry for that image",
                "leave it out if no registry must be asked",
            )

    def about_daemon(self, about: About | None) -> None:
        state, for_daemon, name = self._seen.facts.daemon, self._seen.facts.build == "daemon", self._seen.name
        severity: Severity = "warning" if for_daemon else "note"
        address = self._session.address
        matter = address.detail or self._seen.detail
        ways_out = {
            "absent": "mount the socket, or the reference stays the name",
            "denied": "give the phase's user permission, or the reference stays the name",
            "silent": "start the daemon, or pass its address with --docker-host",
        }
        if state in ways_out:
            needless = self._seen.facts.build == "registry"
            self._find(severity, matter, "nothing, in a registry build" if needless else ways_out[state])
        if state in ("absent", "denied", "silent") and self._call.variable("CNB_USE_DAEMON"):
            self._find(
                "warning", "CNB_USE_DAEMON is set, but no daemon can be used", "mount the daemon's socket, or unset it"
            )
        if state == "lacks" and self._seen.before is not None and self._seen.before.image:
            self._find_lacking(name, for_daemon)
        if state == "has":
            self._find_platform(name)
        for what, url in elsewhere(address, self._call.environ):
            self._find("note", f"{what} leads to {url}, where the phases don't look", "set DOCKER_HOST if they should")
        if about is not None and about.store == "containerd":
            self._find("note", "with the containerd image store, an image's ID is its index digest", "nothing")
        if about is not None and about.name == "Podman":
            self._find("note", "Podman also finds an image by the digest for its architecture", "nothing")

    def _find_lacking(self, name: str, for_daemon: bool) -> None:
        what, pull = self._seen.detail, f"docker pull --platform {own_platform()} {name}"
        there = self._platforms(name)
        if there:
            what += f" ({', '.join(there)})"
        if for_daemon and self._seen.facts.pull_policy != "never":
            self._find("warning", f"{what}; it would be pulled", pull)
        else:
            self._find("error" if for_daemon else "note", what, pull)

    def _platforms(self, name: str) -> list[str]:
        try:
            return self._session.ask(lambda daemon: daemon.platforms_of(name))
        except Unreachable:
            return []

    def _find_platform(self, name: str) -> None:
        there, own = self._platforms(name), own_platform()
        if not there:
            self._find("note", f"the daemon doesn't say for which platform {name} is", "nothing")
        elif own not in there:
            what = f"{name} is for {', '.join(there)}, the phase for {own}"
            self._find("error", what, f"docker pull --platform {own} {name}")

    def about_registry(self, timeout: float) -> None:
        name = self._seen.name
        registry = Session(self._session.address, timeout, self._call.variables)  # its own limit: it may be far
        try:
            digest = registry.ask(lambda daemon: daemon.registry_digest(name))
            has = self._seen.facts.daemon == "has"
            known = self._session.ask(lambda daemon: daemon.digests_of(name)) if has else [digest]
        except Unreachable as problem:
            what = f"the registry does not have {name}, or can't be asked: {problem}"
            self._find("note", what, "nothing, in a daemon build")
            return
        if not any(digest in one for one in known):
            self._find(
                "warning",
                f"the registry has another image under {name}: {digest}",
                f"docker pull {name} if you want that one; the shim keeps the daemon's",
            )

    def about_installation(self, wrapped: tuple[str, ...], version: Version) -> None:
        if wrapped and len(wrapped) < len(WRAPPED):
            bare = ", ".join(phase for phase in WRAPPED if phase not in wrapped)
            self._find(
                "warning", f"there are drop-ins for {', '.join(wrapped)}, but not for {bare}", "wrap all three phases"
            )
        if self._seen.facts.api == "newer":
            self._find("note", "at Platform API 0.12 and later the restorer takes -daemon", "the shim is not needed")
        elif version is not None and version < (0, 17):
            self._find("note", "lifecycles up to 0.16 don't rewrite the run image", "the shim is not needed")


def _version(lifecycle: str) -> Version:
    """Ask the restorer's binary, if it is there, for its version."""
    for name in ("restorer.real", "restorer", "lifecycle"):
        path = os.path.join(lifecycle, name)
        if os.path.exists(path):
            return _version_of(path)
    return None


def _version_of(path: str) -> Version:
    try:
        told = subprocess.run(
            [path, "-version"],
            capture_output=True,
            text=True,
            errors="replace",
            timeout=10,
            check=False,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "CNB_PLATFORM_API": "0.11"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.match(r"(\d{1,4})\.(\d{1,4})\.(\d{1,4})", told)
    return tuple(map(int, number.groups())) if number else None


def lines_of(checked: Checked) -> list[str]:
    """Return what was found, for a person."""
    build = {"daemon": "daemon build", "registry": "registry build", None: "unknown"}[checked.build]
    sure = f" ({checked.certainty}, by {checked.evidence})" if checked.build else ""
    lines = [
        f"Platform API:     {checked.platform_api or 'unset'}",
        f"lifecycle:        {checked.lifecycle or 'not found'}",
        f"drop-ins:         {', '.join(checked.wrapped) or 'none'}",
        f"build type:       {build}{sure}",
        f"run image:        {checked.run_image or 'none'}",
        f"reference:        {checked.reference or 'empty'}",
    ]
    if checked.daemon is not None:
        store = f", image store {checked.daemon.store}" if checked.daemon.store else ""
        lines.append(f"daemon:           {checked.daemon.name} {checked.daemon.version}{store}")
    if checked.image_id:
        lines.append(f"image ID:         {checked.image_id}")
    lines += [
        f"without the shim: the restorer {checked.restorer.replace('**', '')}",
        f"with the shim:    it {checked.shim} [{checked.outcome}]",
    ]
    return lines + [f"{finding.severity}: {finding.what}\n  {finding.do}" for finding in checked.findings]
