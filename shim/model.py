"""The frozen values that pass between the parts, and the words they are made of.

Nothing here is imported but Python's own built-in parts. Most runs of the shim end in becoming the
phase, and a bare interpreter start is the unit they are measured in: `dataclasses` costs 1.4 of
it, `typing` 0.8, `enum` 0.3. So a `Record` stands for a frozen dataclass and literal types for
enums; mypy checks both as strictly.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Literal, Self, dataclass_transform

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
else:

    def dataclass_transform(**_: object) -> object:
        """Stand in at run time for what only the type checker reads."""
        return lambda cls: cls


@dataclass_transform(frozen_default=True, kw_only_default=True)
class Record:
    """A frozen value: its fields are the class's annotations, compared and shown by value."""

    def __init__(self, **values: object) -> None:
        """Take every field by keyword.

        Raises:
            TypeError: a field without a default is missing, or a name isn't a field.

        """
        cls = type(self)
        for name in cls.__annotations__:
            if name in values:
                object.__setattr__(self, name, values.pop(name))
            elif not hasattr(cls, name):
                raise TypeError(f"{cls.__name__} needs {name}")
        if values:
            raise TypeError(f"{cls.__name__} has no {', '.join(values)}")

    def __setattr__(self, name: str, value: object) -> None:
        """Refuse: a record doesn't change, `but` makes another."""
        raise AttributeError(f"{type(self).__name__}.{name} is frozen")

    def __eq__(self, other: object) -> bool:
        """Compare by class and fields."""
        return type(other) is type(self) and fields(other) == fields(self)

    def __hash__(self) -> int:
        """Hash by fields."""
        return hash(tuple(fields(self).items()))

    def __repr__(self) -> str:
        """Show as the call that makes it."""
        inside = ", ".join(f"{name}={value!r}" for name, value in fields(self).items())
        return f"{type(self).__name__}({inside})"

    def but(self, **changes: object) -> Self:
        """Return the same value with some fields changed."""
        return type(self)(**{**fields(self), **changes})


def fields(record: object) -> dict[str, object]:
    """Return a record's fields by name, in the order of their declaration."""
    return {name: getattr(record, name) for name in type(record).__annotations__}


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


def boolean(text: str) -> bool | None:
    """Read a boolean as Go's `strconv.ParseBool` does, which the lifecycle uses; None if it isn't one."""
    if text in ("1", "t", "T", "true", "TRUE", "True"):
        return True
    if text in ("0", "f", "F", "false", "FALSE", "False"):
        return False
    return None


def kind_of(reference: str) -> Kind:
    """Say what sort of `run-image.reference` this is: nothing, a name, a bare image ID or a digest."""
    if not reference:
        return "empty"
    if "@sha256:" in reference:
        return "digest"
    if is_hex_id(reference.removeprefix("sha256:")):
        return "id"
    return "name"


def is_hex_id(text: str) -> bool:
    """Say whether this is an image ID as the lifecycle writes it: 64 lower-case hex digits."""
    return len(text) == 64 and not text.strip("0123456789abcdef")


def environment(environ: Mapping[str, str], name: str) -> str | None:
    """Return a variable, or None where it isn't set or empty: the lifecycle sees no difference."""
    return environ.get(name) or None
