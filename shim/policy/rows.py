"""What to do, as tables: the evidence, and the rows of the three phases.

`weigh` and `decide` take the first row that holds, so the order is part of the meaning. They have
no I/O, no clock and no environment. The reference pages of the docs are rendered from these rows.
"""

from __future__ import annotations

from shim.policy.facts import Clues, Evidence, Facts, Verdict
from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.policy.facts import Certainty


class Witness(Record):
    """A row of the evidence: what is looked at, and what it says."""

    number: str
    name: str
    """Stands in the report as `by`."""
    when: str
    """What is looked at, in words."""
    says: Callable[[Clues], bool | None]


class Row(Record):
    """A row of the policy."""

    number: str
    """The row of the contract that this belongs to."""
    when: str
    holds: Callable[[Facts], bool]
    verdict: Verdict
    then: str
    """What is done, in words."""
    because: str
    """The reason, in a sentence to be filled in; the outcome is put behind it."""


EVIDENCE: tuple[Witness, ...] = (
    Witness(
        number="1",
        name="option",
        when="`--daemon` / `--no-daemon`, or `ANALYZED_SHIM_DAEMON`",
        says=lambda clues: clues.option,
    ),
    Witness(
        number="2",
        name="note",
        when="the note that the wrapped analyzer left beside analyzed.toml (`analyzed-shim.toml`)",
        says=lambda clues: clues.note,
    ),
    Witness(
        number="3",
        name="marker",
        when="`[run-image] daemon` in analyzed.toml, for a platform that writes that file after detect",
        says=lambda clues: clues.marker,
    ),
    Witness(
        number="4",
        name="CNB_USE_DAEMON",
        when="`CNB_USE_DAEMON`",
        says=lambda clues: clues.use_daemon,
    ),
    Witness(
        number="4",
        name="CNB_USE_LAYOUT",
        when="`CNB_USE_LAYOUT=true`: no",
        says=lambda clues: False if clues.use_layout else None,
    ),
    Witness(
        number="5",
        name="previous image",
        when="the previous image, `[image].reference`: a bare ID is a yes, `repo@sha256:…` a no",
        says=lambda clues: {"id": True, "digest": False}.get(clues.previous),
    ),
    Witness(
        number="6",
        name="pull policy",
        when="a pull policy was given: yes, a registry build has none",
        says=lambda clues: True if clues.policy_given else None,
    ),
)


FAILING = ("unrepaired", "not-in-daemon")
"""The outcomes that `--strict` makes an error of."""


def weigh(clues: Clues) -> Evidence:
    """Say which build it is, by the first witness that speaks."""
    for witness in EVIDENCE:
        says = witness.says(clues)
        if says is not None:
            return Evidence(build="daemon" if says else "registry", by=witness.name)
    return Evidence(build="unsaid", by="")


def certainty(facts: Facts) -> Certainty:
    """Say how sure it is which build this is.

    Likely is a build of which nothing is known, where the engine has the run image under its name,
    or its socket is there but isn't ours to open: platforms mount it for daemon builds only.
    """
    if facts.build != "unsaid":
        return "known"
    return "likely" if facts.engine in ("has", "denied") else "unknown"


def _known_before(facts: Facts) -> bool:
    return facts.build == "daemon" and facts.status == "not-run"


def _cannot_ask(facts: Facts) -> bool:
    if facts.build == "daemon":
        return facts.engine in ("absent", "denied", "silent")
    return facts.engine == "denied"


_PASS = Verdict(outcome="passed-through", run="exec", level="debug")
_PASS_WARNING = _PASS.but(level="warn")
_AS_CALLED = "becomes the phase, as called"

_ABOUT = Row(
    number="1",
    when="the version or help is asked for",
    holds=lambda f: f.about,
    verdict=_PASS,
    then=_AS_CALLED,
    because="{phase} only tells about itself",
)
_NOT_AFFECTED = Row(
    number="1",
    when="the Platform API is unset, below 0.10, or 0.12 and later",
    holds=lambda f: f.api != "affected",
    verdict=_PASS,
    then=_AS_CALLED,
    because="nothing to do at Platform API {api}",
)
_NO_ANALYZED = Row(
    number="1",
    when="there is no analyzed.toml",
    holds=lambda f: f.analyzed == "missing",
    verdict=_PASS,
    then=_AS_CALLED,
    because="no {analyzed}",
)
_BROKEN_ANALYZED = Row(
    number="1",
    when="analyzed.toml can't be read",
    holds=lambda f: f.analyzed == "broken",
    verdict=_PASS_WARNING,
    then=_AS_CALLED,
    because="{problem}",
)
_NO_RUN_IMAGE = Row(
    number="1",
    when="analyzed.toml has no `[run-image]`",
    holds=lambda f: not f.run_image,
    verdict=_PASS_WARNING,
    then=_AS_CALLED,
    because="{analyzed} has no [run-image], so there is nothing to export on: look at what the analyzer said",
)

ANALYZER: tuple[Row, ...] = (
    _ABOUT,
    _NOT_AFFECTED,
    Row(
        number="note",
        when="the analyzer runs at 0.10 or 0.11",
        holds=lambda f: f.noted,
        verdict=Verdict(outcome="noted", run="exec", level="debug"),
        then="leaves the note beside analyzed.toml, then becomes the analyzer",
        because="noted in {note} that this is {build}",
    ),
    Row(
        number="note",
        when="the note can't be written",
        holds=lambda f: not f.noted,
        verdict=_PASS,
        then=_AS_CALLED,
        because="{detail}",
    ),
)

RESTORER: tuple[Row, ...] = (
    Row(
        number="1",
        when="the restorer left an analyzed.toml that can't be read",
        holds=lambda f: f.status != "not-run" and f.analyzed != "readable",
        verdict=Verdict(outcome="unrepaired", level="warn"),
        then="left; its status is passed on",
        because="{problem}; the restorer left it so, with {status}",
    ),
    _ABOUT,
    _NOT_AFFECTED,
    Row(
        number="1",
        when="there is no group.toml",
        holds=lambda f: f.group == "missing",
        verdict=_PASS,
        then=_AS_CALLED,
        because="no {group}",
    ),
    Row(
        number="1",
        when="group.toml can't be read",
        holds=lambda f: f.group == "broken",
        verdict=_PASS_WARNING,
        then=_AS_CALLED,
        because="{problem}",
    ),
    Row(
        number="1",
        when="the group has no extension",
        holds=lambda f: not f.extensions,
        verdict=_PASS,
        then=_AS_CALLED,
        because="no image extension in {group}",
    ),
    _NO_ANALYZED,
    _BROKEN_ANALYZED,
    _NO_RUN_IMAGE,
    Row(
        number="1",
        when="`run-image.target.os` is set",
        holds=lambda f: f.target,
        verdict=_PASS,
        then=_AS_CALLED,
        because="the restorer looks nothing up where run-image.target.os is set",
    ),
    Row(
        number="1",
        when="`run-image.extend` is true",
        holds=lambda f: f.extend,
        verdict=_PASS,
        then=_AS_CALLED,
        because="the extender needs the registry's digest",
    ),
    Row(
        number="2",
        when="no image was switched (`run-image.image` is absent)",
        holds=lambda f: not f.image,
        verdict=Verdict(outcome="no-lookup", run="exec", lookup=False),
        then="becomes the restorer, without the lookup",
        because="no run image was switched, so there is nothing to look up and the restorer would crash",
    ),
    Row(
        number="3",
        when="known to be no daemon build, and the reference is empty (lifecycle 0.17)",
        holds=lambda f: f.build == "registry" and f.reference == "empty",
        verdict=Verdict(outcome="filled", run="exec", write="name"),
        then="the name is written, then becomes the restorer, as called",
        because="the reference was empty and got its name, {name}, in a build that is for no daemon by {by}",
    ),
    Row(
        number="3",
        when="known to be no daemon build",
        holds=lambda f: f.build == "registry",
        verdict=Verdict(outcome="not-a-daemon-build", run="exec", level="debug"),
        then="becomes the restorer, as called",
        because="no daemon build by {by}",
    ),
    Row(
        number="5",
        when="a daemon build, known, or likely because its socket isn't ours to open; the engine can't "
        "be asked; and the reference is empty",
        holds=lambda f: f.status == "not-run" and _cannot_ask(f) and f.reference == "empty",
        verdict=Verdict(outcome="filled", run="exec", lookup=False, write="name", level="warn"),
        then="the name is written, then becomes the restorer, without the lookup",
        because="{detail}, so the empty reference got its name, {name}, which the exporter finds",
    ),
    Row(
        number="5",
        when="a daemon build, known, or likely because its socket isn't ours to open; the engine can't be asked",
        holds=lambda f: f.status == "not-run" and _cannot_ask(f),
        verdict=Verdict(outcome="kept-name", run="exec", lookup=False, level="warn"),
        then="becomes the restorer, without the lookup; the reference stays the name",
        because="{detail}, so the reference stays {before}, which the exporter finds",
    ),
    Row(
        number="4",
        when="known daemon build; pull policy `if-not-present`; nothing asked yet",
        holds=lambda f: _known_before(f) and f.engine == "unasked" and f.policy == "if-not-present",
        verdict=Verdict(outcome="prevented", run="parent", lookup=False, step="ask-name"),
        then="the restorer runs without the lookup, and the daemon is asked meanwhile",
        because="the daemon is asked while the restorer runs",
    ),
    Row(
        number="4",
        when="known daemon build; pull policy `never` or `always`; nothing asked yet",
        holds=lambda f: _known_before(f) and f.engine == "unasked",
        verdict=Verdict(outcome="prevented", step="ask-name"),
        then="the daemon is asked first",
        because="the daemon has to be asked first",
    ),
    Row(
        number="4",
        when="known daemon build; pull policy `always`; not pulled yet",
        holds=lambda f: _known_before(f) and f.policy == "always" and not f.pull_tried,
        verdict=Verdict(outcome="prevented", step="pull"),
        then="the name is pulled first; if that fails and it is there, a warning",
        because="the daemon has to pull first",
    ),
    Row(
        number="4",
        when="known daemon build; the daemon has the image",
        holds=lambda f: _known_before(f) and f.engine == "has",
        verdict=Verdict(outcome="prevented", run="parent", lookup=False),
        then="the restorer runs without the lookup",
        because="the daemon has {name}",
    ),
    Row(
        number="4",
        when="known daemon build; pull policy `never`; the name isn't in the daemon",
        holds=lambda f: _known_before(f) and f.policy == "never",
        verdict=Verdict(outcome="not-in-daemon", run="refuse", level="error"),
        then="a clear error before anything runs: exit 80",
        because="{name} isn't in the daemon and pull policy never forbids to pull it",
    ),
    Row(
        number="4",
        when="known daemon build; not in the daemon, and the pull failed before the restorer ran",
        holds=_known_before,
        verdict=Verdict(outcome="not-in-daemon", run="exec", level="warn"),
        then="becomes the restorer, as called; the line says what to run",
        because="{name} isn't in the daemon and couldn't be pulled, so the restorer runs as called; "
        "the export needs it: docker pull {name}",
    ),
    Row(
        number="4",
        when="known daemon build; the restorer itself failed",
        holds=lambda f: f.build == "daemon" and f.status != "ended-well",
        verdict=Verdict(outcome="unchanged"),
        then="its status is passed on",
        because="the restorer ended with {status} and {analyzed} is as it left it",
    ),
    Row(
        number="4",
        when="known daemon build; the daemon has the image; the restorer ended well",
        holds=lambda f: f.build == "daemon" and f.engine == "has",
        verdict=Verdict(outcome="prevented", write="id"),
        then="*ID* is written",
        because="the restorer did no registry lookup, and run-image.reference is the daemon's {name}, {id}",
    ),
    Row(
        number="4",
        when="known daemon build; pull policy `if-not-present`; not in the daemon, not pulled yet",
        holds=lambda f: f.build == "daemon" and f.engine == "lacks" and not f.pull_tried,
        verdict=Verdict(outcome="not-in-daemon", step="pull"),
        then="the name is pulled",
        because="the daemon has to pull",
    ),
    Row(
        number="4",
        when="known daemon build; not in the daemon, and the pull failed",
        holds=lambda f: f.build == "daemon" and f.engine == "lacks",
        verdict=Verdict(outcome="not-in-daemon", run="exec", level="warn"),
        then="becomes the restorer once more, as called; the line says what to run",
        because="{name} isn't in the daemon and couldn't be pulled, so the restorer runs once more, as called; "
        "the export needs it: docker pull {name}",
    ),
    Row(
        number="5",
        when="known daemon build; no usable answer in time; the reference is empty",
        holds=lambda f: f.build == "daemon" and f.reference == "empty",
        verdict=Verdict(outcome="filled", write="name", level="warn"),
        then="the name is written",
        because="{detail}, so the empty reference got its name, {name}, which the exporter finds",
    ),
    Row(
        number="5",
        when="known daemon build; no usable answer in time",
        holds=lambda f: f.build == "daemon",
        verdict=Verdict(outcome="kept-name", level="warn"),
        then="the reference stays the name, which the exporter finds",
        because="{detail}, so the reference stays {before}, which the exporter finds",
    ),
    Row(
        number="6/7",
        when="nothing known; there may be an engine",
        holds=lambda f: f.status == "not-run" and f.engine == "unasked",
        verdict=Verdict(outcome="daemon-unknown", run="parent", step="ask-name"),
        then="the restorer runs as called, and the daemon is asked meanwhile (never told to pull)",
        because="the daemon is asked while the restorer runs",
    ),
    Row(
        number="7",
        when="nothing known; no engine",
        holds=lambda f: f.status == "not-run",
        verdict=Verdict(outcome="daemon-unknown", run="parent"),
        then="the restorer runs as called",
        because="nothing tells whether this is a daemon build",
    ),
    Row(
        number="6",
        when="likely; the restorer failed with analyzed.toml untouched",
        holds=lambda f: f.engine == "has" and f.status == "failed" and not f.touched and not f.retried,
        verdict=Verdict(outcome="retried", run="parent", lookup=False, level="warn"),
        then="a line says so; it runs once more, without the lookup",
        because="the restorer ended with {status}; the daemon has {name}, so it runs once more without asking "
        "the registry",
    ),
    Row(
        number="6",
        when="likely; the restorer ended by a signal, or failed otherwise",
        holds=lambda f: f.engine == "has" and f.status != "ended-well",
        verdict=Verdict(outcome="unchanged"),
        then="its status is passed on",
        because="the restorer ended with {status} and {analyzed} is as it left it",
    ),
    Row(
        number="6",
        when="likely; the second run ended well",
        holds=lambda f: f.engine == "has" and f.retried,
        verdict=Verdict(outcome="retried", write="id"),
        then="*ID* is written",
        because="the restorer ran again without the registry, and run-image.reference is the daemon's {name}, {id}",
    ),
    Row(
        number="6",
        when="likely; the reference is empty",
        holds=lambda f: f.engine == "has" and f.reference == "empty",
        verdict=Verdict(outcome="filled", write="id"),
        then="*ID* is written",
        because="the reference was empty, which fails every export, and is now the daemon's {name}, {id}",
    ),
    Row(
        number="6",
        when="likely; the reference is unchanged",
        holds=lambda f: f.engine == "has" and not f.rewritten,
        verdict=Verdict(outcome="unchanged"),
        then="every byte is left alone",
        because="the restorer left run-image.reference alone",
    ),
    Row(
        number="6",
        when="likely; the reference was rewritten; nothing asked about it yet",
        holds=lambda f: f.engine == "has" and f.resolves == "unasked",
        verdict=Verdict(outcome="unchanged", step="ask-reference"),
        then="the daemon is asked for the new reference",
        because="the daemon has to be asked for the new reference",
    ),
    Row(
        number="6",
        when="likely; the new reference resolves to *ID*",
        holds=lambda f: f.engine == "has" and f.resolves == "same",
        verdict=Verdict(outcome="resolves"),
        then="every byte is left alone",
        because="the daemon knows {after} as its {name}",
    ),
    Row(
        number="6",
        when="likely; no answer about the new reference",
        holds=lambda f: f.engine == "has" and f.resolves == "silent",
        verdict=Verdict(outcome="unrepaired", level="warn"),
        then="left",
        because="{detail}, so {after} was left; if the export fails on it, run the shim with --daemon",
    ),
    Row(
        number="6",
        when="likely; the new reference doesn't resolve, or is another image",
        holds=lambda f: f.engine == "has",
        verdict=Verdict(outcome="reverted", write="id"),
        then="*ID* is written",
        because="the registry's {after} isn't in the daemon, so run-image.reference is again the daemon's {name}, {id}",
    ),
    Row(
        number="7",
        when="unknown; the restorer ended well; the reference is empty, and the engine doesn't have the name",
        holds=lambda f: f.status == "ended-well" and f.reference == "empty" and f.engine == "lacks",
        verdict=Verdict(outcome="daemon-unknown", level="warn"),
        then="nothing is changed, as by the name alone a daemon build would fail too; the line names the options",
        because="the reference is empty, which fails every export, and {detail}; for a daemon build use --daemon, "
        "for a registry build --no-daemon, or wrap the exporter too",
    ),
    Row(
        number="7",
        when="unknown; the restorer ended well; the reference is empty; no engine answers",
        holds=lambda f: f.status == "ended-well" and f.reference == "empty",
        verdict=Verdict(outcome="filled", write="name"),
        then="the name is written",
        because="the reference was empty, which fails every export, and got its name, {name}",
    ),
    Row(
        number="7",
        when="unknown; the reference was rewritten",
        holds=lambda f: f.rewritten,
        verdict=Verdict(outcome="daemon-unknown", level="warn"),
        then="nothing is changed; the line names the option",
        because="the restorer rewrote run-image.reference to {after} and nothing tells whether this is a "
        "daemon build ({detail}); if it is, use --daemon or ANALYZED_SHIM_DAEMON=true",
    ),
    Row(
        number="7",
        when="unknown",
        holds=lambda f: f.status != "not-run",
        verdict=Verdict(outcome="daemon-unknown", level="debug"),
        then="nothing is changed",
        because="nothing tells whether this is a daemon build, and the restorer rewrote nothing",
    ),
)

EXPORTER: tuple[Row, ...] = (
    _ABOUT,
    _NOT_AFFECTED,
    _NO_ANALYZED,
    _BROKEN_ANALYZED,
    _NO_RUN_IMAGE,
    Row(
        number="8",
        when="no `run-image.image`, or the reference is a name",
        holds=lambda f: not f.image or f.reference == "name",
        verdict=_PASS,
        then=_AS_CALLED,
        because="the exporter takes {before} as it is",
    ),
    Row(
        number="8",
        when="a bare ID in a daemon build, or a digest in a registry build",
        holds=lambda f: f.reference == ("id" if f.build == "daemon" else "digest"),
        verdict=_PASS,
        then=_AS_CALLED,
        because="the exporter takes {before} as it is",
    ),
    Row(
        number="10",
        when="registry build, and the reference is a bare ID beside an `image`",
        holds=lambda f: f.build != "daemon" and f.reference == "id",
        verdict=Verdict(outcome="name-restored", run="exec", write="name"),
        then="the name is written back, then becomes the exporter",
        because="a build for a registry can't export on the daemon's ID {before}, so run-image.reference is "
        "its name again, {name}",
    ),
    Row(
        number="10",
        when="registry build, and the reference is empty beside an `image`",
        holds=lambda f: f.build != "daemon",
        verdict=Verdict(outcome="filled", run="exec", write="name"),
        then="the name is written, then becomes the exporter",
        because="the reference was empty, which fails every export, and got its name, {name}",
    ),
    Row(
        number="9",
        when="daemon build, and the reference is a digest or empty; nothing asked yet",
        holds=lambda f: f.engine == "unasked",
        verdict=Verdict(outcome="unchanged", step="ask-name"),
        then="the daemon is asked for the name",
        because="the daemon has to be asked",
    ),
    Row(
        number="9",
        when="daemon build; the reference is empty; the daemon has the image",
        holds=lambda f: f.reference == "empty" and f.engine == "has",
        verdict=Verdict(outcome="filled", run="exec", write="id"),
        then="*ID* is written, then becomes the exporter",
        because="the reference was empty, which fails every export, and is now the daemon's {name}, {id}",
    ),
    Row(
        number="9",
        when="daemon build; the reference is empty; the name isn't in the daemon, or no answer",
        holds=lambda f: f.reference == "empty",
        verdict=Verdict(outcome="filled", run="exec", write="name", level="warn"),
        then="the name is written, then becomes the exporter; the line says what to run",
        because="{detail}, so the empty reference got its name, {name}; if the export doesn't find it: "
        "docker pull {name}",
    ),
    Row(
        number="9",
        when="daemon build; the daemon answers; nothing asked about the reference yet",
        holds=lambda f: f.engine in ("has", "lacks") and f.resolves == "unasked",
        verdict=Verdict(outcome="unchanged", step="ask-reference"),
        then="the daemon is asked for the reference",
        because="the daemon has to be asked for the reference",
    ),
    Row(
        number="9",
        when="daemon build; the reference resolves to *ID*, or to an image where the name has none",
        holds=lambda f: f.resolves == "same" or (f.engine == "lacks" and f.resolves == "other"),
        verdict=Verdict(outcome="resolves", run="exec"),
        then="left, then becomes the exporter",
        because="the daemon knows {before}",
    ),
    Row(
        number="9",
        when="daemon build; the name isn't in the daemon, nor the reference",
        holds=lambda f: f.engine == "lacks" and f.resolves == "nowhere",
        verdict=Verdict(outcome="not-in-daemon", run="exec", level="warn"),
        then="left, then becomes the exporter; the line says what to run",
        because="neither {before} nor {name} is in the daemon and the export will fail: docker pull {name}",
    ),
    Row(
        number="9",
        when="daemon build; no answer",
        holds=lambda f: f.engine != "has" or f.resolves == "silent",
        verdict=Verdict(outcome="unrepaired", run="exec", level="warn"),
        then="left, then becomes the exporter; the line says what to run",
        because="{detail}, so {before} was left; if the export doesn't find it: docker pull {before}",
    ),
    Row(
        number="9",
        when="daemon build; the reference doesn't resolve, or is another image",
        holds=lambda f: f.build == "daemon",
        verdict=Verdict(outcome="reverted", run="exec", write="id"),
        then="*ID* is written, then becomes the exporter",
        because="{before} isn't the daemon's {name}, so run-image.reference is {id}",
    ),
)

OTHER: tuple[Row, ...] = (
    Row(
        number="other",
        when="another phase of the lifecycle",
        holds=lambda f: f.phase == "other",
        verdict=_PASS,
        then=_AS_CALLED,
        because="nothing to do for this phase",
    ),
)

TABLES = {"analyzer": ANALYZER, "restorer": RESTORER, "exporter": EXPORTER, "other": OTHER}


def decide(facts: Facts) -> Row:
    """Return the first row of the phase's table that holds; its `verdict` says what to do now.

    A verdict with a `step` or with `run="parent"` isn't the last one: it is done, and decided again.
    The tables are complete: for all facts that can be gathered, some row holds.
    """
    return next(row for row in TABLES[facts.phase] if row.holds(facts))
