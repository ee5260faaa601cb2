"""`check`: what would happen to this analyzed.toml and why, and what is wrong with the set-up. It changes nothing."""

from __future__ import annotations

import os
import re
import subprocess
from typing import TYPE_CHECKING

from shim.daemon import client as engine
from shim.errors import Unreachable
from shim.phase.gather import Look
from shim.phase.invocation import WRAPPED
from shim.phase.log import voice
from shim.phase.report import SCHEMA
from shim.policy import rows as policy
from shim.record import Record, fields
from shim.tools.scenarios import Scenario, scenario_of

if TYPE_CHECKING:
    from typing import Literal

    from shim.daemon.client import About
    from shim.phase.invocation import Invocation
    from shim.phase.settings import Settings
    from shim.policy.rows import Row
    from shim.tools.scenarios import Version

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
    """The phases' version; None where there is no binary to ask."""
    wrapped: tuple[str, ...]
    """The phases in whose place the shim is."""
    build: str | None
    certainty: str | None
    evidence: str | None
    run_image: str | None
    reference: str | None
    image_id: str | None
    engine: About | None
    scenario: str
    restorer: str
    """What the bare restorer does."""
    row: str
    outcome: str
    shim: str
    """What the shim does."""
    findings: tuple[Finding, ...]

    def as_values(self) -> dict[str, object]:
        """Return all as what JSON can hold; what isn't known is left out."""
        values: dict[str, object] = {"schema": SCHEMA, "phase": "check"}
        values.update((name, value) for name, value in fields(self).items() if value is not None)
        if self.engine is not None:
            values["engine"] = fields(self.engine)
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
    return _Check(call, chosen, lifecycle).check(registry)


class _Check(Look):
    """One look at everything."""

    def __init__(self, call: Invocation, chosen: Settings, lifecycle: str) -> None:
        super().__init__(call, chosen, voice({**call.environ, "CNB_LOG_LEVEL": "error"}, {}))
        self.lifecycle = lifecycle
        self.findings: list[Finding] = []
        self.wrapped = tuple(phase for phase in WRAPPED if os.path.lexists(os.path.join(lifecycle, f"{phase}.real")))

    def check(self, registry: bool) -> Checked:
        self.look()
        self._find_bad_files()
        if self.address is None:
            self.find_engine()
        if self.facts.engine == "unasked":
            if self.name():
                self.settle(self.ask_for_name())
            else:
                self._ask_whether_it_answers()
        version = self._version()
        about = self.about_engine()
        self._find_in_engine(about)
        self._find_in_installation()
        self._find_needless(version)
        if registry and self.daemon is not None and self.before is not None and self.before.image:
            self._find_in_registry()
        scenario = scenario_of(self.facts, version)
        row = self._foresee(scenario)
        found = self.before
        known = None if self.facts.build == "unsaid" else self.facts.build
        return Checked(
            platform_api=self.call.platform_api,
            lifecycle=".".join(map(str, version)) if version else None,
            wrapped=self.wrapped,
            build=known or ("daemon" if policy.certainty(self.facts) == "likely" else None),
            certainty=policy.certainty(self.facts) if found else None,
            evidence=self.by or ("the engine" if policy.certainty(self.facts) == "likely" else None),
            run_image=self.name() or None,
            reference=found.reference if found else None,
            image_id=self.id,
            engine=about,
            scenario=scenario.name,
            restorer=scenario.restorer,
            row=row.number,
            outcome=row.verdict.outcome,
            shim=self._in_words(row),
            findings=tuple(self.findings),
        )

    def _foresee(self, scenario: Scenario) -> Row:
        """Follow the rows as a run would, with a restorer that does what its scenario says and a pull that works."""
        facts = self.facts
        row = policy.decide(facts)
        if facts.engine in ("has", "lacks") and facts.build == "daemon" and facts.status == "not-run":
            pulled = self._would_be_pulled()
            facts = facts.but(pull_tried=pulled or facts.policy == "always", engine="has" if pulled else facts.engine)
            row = policy.decide(facts)
        while row.verdict.run == "parent":
            rewritten = row.verdict.lookup and scenario.name == "rewrite"
            facts = facts.but(
                status="ended-well",
                rewritten=rewritten,
                touched=True,
                reference="digest" if rewritten else facts.reference,
                resolves="nowhere" if rewritten else "unasked",
            )
            row = policy.decide(facts)
        return row

    def _would_be_pulled(self) -> bool:
        return self.facts.build == "daemon" and self.facts.engine == "lacks" and self.facts.policy != "never"

    def _in_words(self, row: Row) -> str:
        return f"{row.when}: {row.then}".replace("*ID*", f"the ID {(self.id or '')[:12]}".rstrip())

    # What is wrong.

    def _find(self, severity: Severity, what: str, do: str) -> None:
        self.findings.append(Finding(severity=severity, what=what, do=do))

    def _find_bad_files(self) -> None:
        if "broken" in (self.facts.group, self.facts.analyzed):
            self._find("error", self.detail, "the restorer can't read it either: let the phase before write it anew")
        for warning in self.warnings:
            self._find("warning", warning, "let the wrapped analyzer write the note anew")
        if self.facts.analyzed == "missing" or self.facts.group == "missing":
            path = self.call.group if self.facts.group == "missing" else self.call.analyzed
            self._find(
                "warning", f"there is no {path}", "check again between the detector and the restorer, or give --layers"
            )
        elif self.facts.analyzed == "readable" and not self.facts.run_image:
            self._find("error", f"{self.call.analyzed} has no [run-image]", "look at what the analyzer said")
        if self.facts.api == "unset":
            self._find("warning", "CNB_PLATFORM_API isn't set", "give --platform-api as the platform does")
        if "build-image" in self.call.flags or self.call.environ.get("CNB_BUILD_IMAGE"):
            self._find(
                "note", "given -build-image, the restorer asks the registry for that image", "leave it out for never"
            )

    def _ask_whether_it_answers(self) -> None:
        assert self.address is not None
        address = self.address
        try:
            self.daemon = self.ask(lambda: engine.Daemon(address, self.settings.timeout, self.call.environ))
        except Unreachable as problem:
            self.detail = str(problem)
            self.facts = self.facts.but(engine="silent")

    def _find_in_engine(self, about: About | None) -> None:
        state, for_daemon = self.facts.engine, self.facts.build == "daemon"
        severity: Severity = "warning" if for_daemon else "note"
        if state == "absent":
            self._find(
                severity, self.detail or "there is no daemon's socket", "mount it, or the reference stays the name"
            )
        elif state == "denied":
            self._find(severity, self.detail, "give the phase's user a right to it, or the reference stays the name")
        elif state == "silent":
            self._find(severity, self.detail, "start the daemon, or give its address with --docker-host")
        if state in ("absent", "denied", "silent") and self.call.variable("CNB_USE_DAEMON"):
            self._find(
                "warning", "CNB_USE_DAEMON is set, and there is no daemon to use", "mount its socket, or unset it"
            )
        if self._would_be_pulled():
            self._find(
                "warning", f"{self.name()} isn't in the daemon and would be pulled", f"docker pull {self.name()}"
            )
        elif state == "lacks" and self.before is not None and self.before.image:
            self._find(
                "error" if for_daemon else "note", f"{self.name()} isn't in the daemon", f"docker pull {self.name()}"
            )
        if state == "has" and self.daemon is not None:
            daemon, name = self.daemon, self.name()
            try:
                self._find_architecture(*self.ask(lambda: (daemon.platform_of(name), daemon.platform())))
            except Unreachable as problem:
                self._find("note", f"the architecture can't be told: {problem}", "nothing")
        if about is not None and about.store == "containerd":
            self._find(
                "note", "the daemon has the containerd image store, whose image ID is the index digest", "nothing"
            )
        if about is not None and about.name == "Podman":
            self._find("note", "Podman knows an image by its architecture's digest too", "nothing: fewer rewrites hurt")

    def _find_architecture(self, image: str, daemon: str) -> None:
        if image != daemon:
            self._find("error", f"{self.name()} is for {image}, the daemon for {daemon}", f"docker pull {self.name()}")

    def _find_in_registry(self) -> None:
        assert self.daemon is not None
        daemon, name = self.daemon, self.name()
        asked = engine.Inquiry(lambda: daemon.registry_digest(name))
        try:
            digest = asked.answer(self.settings.timeout)  # a time limit of its own: the registry may be far
            known = self.ask(lambda: daemon.digests_of(name)) if self.facts.engine == "has" else [digest]
        except Unreachable as problem:
            what = f"the registry doesn't have {name} or can't be asked: {problem}"
            self._find("note", what, "nothing, in a daemon build")
            return
        if not any(digest in one for one in known):
            self._find(
                "warning",
                f"the registry has another image under {name}: {digest}",
                f"docker pull {name} if that is the one you want; the shim keeps the daemon's",
            )

    def _find_in_installation(self) -> None:
        wrapped = self.wrapped
        if wrapped and len(wrapped) < len(WRAPPED):
            bare = ", ".join(phase for phase in WRAPPED if phase not in wrapped)
            self._find(
                "warning", f"the shim is in the place of {', '.join(wrapped)} but not of {bare}", "wrap all three"
            )

    def _find_needless(self, version: Version) -> None:
        if self.facts.api == "newer":
            self._find("note", "at Platform API 0.12 and later the restorer takes -daemon", "the shim isn't needed")
        elif version is not None and version < (0, 17):
            self._find("note", "lifecycles up to 0.16 don't rewrite the run image", "the shim isn't needed")

    def _version(self) -> Version:
        """Ask the restorer's binary, where it is there, for its version."""
        for name in ("restorer.real", "restorer", "lifecycle"):
            path = os.path.join(self.lifecycle, name)
            if os.path.exists(path):
                return _version_of(path)
        return None


def _version_of(path: str) -> Version:
    try:
        told = subprocess.run(
            [path, "-version"],
            capture_output=True,
            text=True,
            timeout=10,
            check=False,
            env={**os.environ, "CNB_PLATFORM_API": "0.11"},
        ).stdout
    except (OSError, subprocess.SubprocessError):
        return None
    number = re.match(r"(\d+)\.(\d+)\.(\d+)", told)
    return tuple(map(int, number.groups())) if number else None


def lines_of(checked: Checked) -> list[str]:
    """Return what was found, for people."""
    build = {"daemon": "for a daemon", "registry": "for a registry", None: "not told"}[checked.build]
    by = f", by {checked.evidence}" if checked.evidence else ""
    lines = [
        f"Platform API   {checked.platform_api or 'unset'}",
        f"lifecycle      {checked.lifecycle or 'not there to be asked'}",
        f"wrapped        {', '.join(checked.wrapped) or 'none of the phases'}",
        f"build          {build} ({checked.certainty or 'nothing to tell by'}{by})",
        f"run image      {checked.run_image or 'none'}",
        f"reference      {checked.reference or 'empty'}",
    ]
    if checked.engine is not None:
        store = f", image store {checked.engine.store}" if checked.engine.store else ""
        lines.append(f"daemon         {checked.engine.name} {checked.engine.version}{store}")
    if checked.image_id:
        lines.append(f"its image      {checked.image_id}")
    lines += [
        f"the restorer   {checked.restorer.replace('**', '')}",
        f"the shim       row {checked.row}, {checked.shim}: {checked.outcome}",
    ]
    lines += [f"{finding.severity}: {finding.what}\n  what to do: {finding.do}" for finding in checked.findings]
    return lines
