"""Is it a daemon build? Evidence, in the order in which it counts."""

from __future__ import annotations

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.policy.facts import Build, Certainty, Facts, Kind


class Clues(Record):
    """What may indicate the build type; None or empty if a clue says nothing."""

    option: bool | None = None
    """`--daemon/--no-daemon` or `ANALYZED_SHIM_DAEMON`."""
    note: bool | None = None
    """The wrapped analyzer's note (lifecycle issue 1457: "carry this flag from the analyzed step")."""
    marker: bool | None = None
    """`[run-image] daemon` in analyzed.toml."""
    use_daemon: bool | None = None
    """`CNB_USE_DAEMON`."""
    use_layout: bool | None = None
    """`CNB_USE_LAYOUT`."""
    previous: Kind = "empty"
    """What the previous image's reference, `[image].reference`, is."""
    policy_given: bool = False
    """A pull policy was given; a registry build has none."""


class Evidence(Record):
    """One kind of evidence."""

    name: str
    """The report's `evidence`."""
    what: str
    """What is looked at, as it stands in the docs."""
    daemon: Callable[[Clues], bool | None]
    """True: a daemon build; False: none; None: it says nothing."""


EVIDENCE: tuple[Evidence, ...] = (
    Evidence(
        name="option",
        what="`--daemon` / `--no-daemon`, or `ANALYZED_SHIM_DAEMON`",
        daemon=lambda clues: clues.option,
    ),
    Evidence(
        name="note",
        what="the wrapped analyzer's note beside analyzed.toml (`analyzed-shim.toml`)",
        daemon=lambda clues: clues.note,
    ),
    Evidence(
        name="marker",
        what="`[run-image] daemon` in analyzed.toml, for a platform that rewrites the file after detect",
        daemon=lambda clues: clues.marker,
    ),
    Evidence(
        name="CNB_USE_DAEMON",
        what="`CNB_USE_DAEMON`",
        daemon=lambda clues: clues.use_daemon,
    ),
    Evidence(
        name="CNB_USE_LAYOUT",
        what="`CNB_USE_LAYOUT=true`: no",
        daemon=lambda clues: False if clues.use_layout else None,
    ),
    Evidence(
        name="previous image",
        what="the previous image, `[image].reference`: an image ID means yes, `repo@sha256:…` no",
        daemon=lambda clues: {"id": True, "digest": False}.get(clues.previous),
    ),
    Evidence(
        name="pull policy",
        what="a pull policy was given: yes, a registry build has none",
        daemon=lambda clues: True if clues.policy_given else None,
    ),
)


def weigh(clues: Clues) -> tuple[Build, str]:
    """Return the build type given by the first conclusive evidence, and the name of that evidence."""
    for evidence in EVIDENCE:
        daemon = evidence.daemon(clues)
        if daemon is not None:
            return ("daemon" if daemon else "registry"), evidence.name
    return "unknown", ""


def certainty(facts: Facts) -> Certainty:
    """Return how certain the build type is.

    A daemon build is likely if nothing is known, and the daemon has the run image under its name, or its socket is
    there without permission to open it: platforms mount it for daemon builds only.
    """
    if facts.build != "unknown":
        return "known"
    return "likely" if facts.daemon in ("has", "denied") else "unknown"
