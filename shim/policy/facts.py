"""The facts that are decided on, and the words they are made of."""

from __future__ import annotations

from shim.record import Record, is_hex_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Phase = Literal["analyzer", "restorer", "exporter", "other"]
    Api = Literal["unset", "older", "affected", "newer"]
    File = Literal["readable", "missing", "broken"]
    Kind = Literal["empty", "name", "id", "digest"]
    Build = Literal["daemon", "registry", "unsaid"]
    Certainty = Literal["known", "likely", "unknown"]
    PullPolicy = Literal["never", "if-not-present", "always"]
    Engine = Literal["unasked", "absent", "denied", "silent", "lacks", "has"]
    Status = Literal["not-run", "ended-well", "failed", "killed"]
    Resolves = Literal["unasked", "same", "other", "nowhere", "silent"]
    Run = Literal["exec", "parent", "refuse", "nothing"]
    Step = Literal["nothing", "ask-name", "ask-reference", "pull"]
    Write = Literal["nothing", "id", "name"]
    Level = Literal["debug", "info", "warn", "error"]
    Outcome = Literal[
        "passed-through",
        "noted",
        "no-lookup",
        "not-a-daemon-build",
        "prevented",
        "kept-name",
        "unchanged",
        "resolves",
        "reverted",
        "filled",
        "retried",
        "daemon-unknown",
        "name-restored",
        "not-in-daemon",
        "unrepaired",
    ]


class Clues(Record):
    """What may tell which build it is; None where a clue doesn't speak."""

    option: bool | None = None
    """`--daemon/--no-daemon` or `ANALYZED_SHIM_DAEMON`."""
    note: bool | None = None
    """What the wrapped analyzer left (lifecycle issue 1457: "carry this flag")."""
    marker: bool | None = None
    """`[run-image] daemon` in analyzed.toml."""
    use_daemon: bool | None = None
    """`CNB_USE_DAEMON`."""
    use_layout: bool | None = None
    """`CNB_USE_LAYOUT`."""
    previous: Kind = "empty"
    """The previous image, `[image].reference`."""
    policy_given: bool = False
    """A pull policy was given; a registry build has none."""


class Evidence(Record):
    """Which build it is, and what said so."""

    build: Build
    by: str


class Facts(Record):
    """All that `policy.decide` looks at. Finitely many values: no strings of the outside."""

    phase: Phase
    about: bool = False
    """`-version` or help was asked for."""
    api: Api = "affected"
    """Where the Platform API stands; `affected` is 0.10 and 0.11."""
    group: File = "readable"
    extensions: bool = True
    """group.toml has a `[[group-extensions]]`."""
    analyzed: File = "readable"
    run_image: bool = True
    """analyzed.toml has a `[run-image]`."""
    target: bool = False
    """`run-image.target.os` is set."""
    extend: bool = False
    image: bool = True
    """`run-image.image`, the name, is there: the run image was switched."""
    reference: Kind = "name"
    """`run-image.reference` now."""
    build: Build = "unsaid"
    policy: PullPolicy = "if-not-present"
    engine: Engine = "unasked"
    """`absent` no socket, `denied` no right to it, `silent` no usable answer, `lacks`/`has` the name."""
    status: Status = "not-run"
    """How the restorer ended."""
    rewritten: bool = False
    """The restorer changed `run-image.reference`."""
    touched: bool = False
    """The restorer changed analyzed.toml at all."""
    retried: bool = False
    """The restorer ran a second time."""
    noted: bool = True
    """The analyzer's note could be written."""
    pull_tried: bool = False
    """The daemon was told to pull, whatever came of it."""
    resolves: Resolves = "unasked"
    """What the daemon finds under the reference, beside the image it has under the name."""


class Verdict(Record):
    """What to do now. Everything that isn't said is left undone.

    With a `step`, or with `run="parent"`, the facts are other ones afterwards, and are decided on again.
    """

    outcome: Outcome
    run: Run = "nothing"
    """`exec`: become the phase; `parent`: start it and stay; `refuse`: end with an error."""
    lookup: bool = True
    """False: the restorer gets a group.toml without its extensions, so asks no registry."""
    step: Step = "nothing"
    """What to do with the daemon; it is done beside the phase where that runs with us as its parent."""
    write: Write = "nothing"
    """What becomes `run-image.reference`."""
    level: Level = "info"


def kind_of(reference: str) -> Kind:
    """Say what sort of `run-image.reference` this is: nothing, a name, a bare image ID or a digest."""
    if not reference:
        return "empty"
    if "@sha256:" in reference:
        return "digest"
    if is_hex_id(reference.removeprefix("sha256:")):
        return "id"
    return "name"
