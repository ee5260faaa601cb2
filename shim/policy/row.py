"""A row of a decision table: a step, after which is decided again, or an end."""

from __future__ import annotations

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Literal

    from shim.policy.facts import Facts

    Action = Literal["ask-name", "ask-reference", "pull", "run"]
    Write = Literal["nothing", "id", "name"]
    Finish = Literal["exec", "return", "refuse"]
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


class Step(Record):
    """What has to be asked, pulled or run before it can be decided on."""

    name: str
    """Unique among all rows."""
    when: str
    holds: Callable[[Facts], bool]
    does: str
    """What the shim does, as it stands in the docs."""
    action: Action
    lookup: bool = True
    """Of a run: False gives the restorer a group.toml without extensions, so that it asks no registry."""
    asks: bool = False
    """Of a run: the daemon is asked for the name meanwhile."""
    says: str = ""
    """A warning to be filled in, if there is something to say."""


class End(Record):
    """What is written, said and done at last."""

    name: str
    """Unique among all rows; the report's `row`."""
    when: str
    holds: Callable[[Facts], bool]
    does: str
    """What the shim does, as it stands in the docs and as `check` foresees it."""
    outcome: Outcome
    says: str
    """The shim's line, to be filled in."""
    level: Level = "info"
    write: Write = "nothing"
    """What becomes `run-image.reference`."""
    finish: Finish = "return"
    """`exec` the phase, `return` its exit status, or `refuse` with an error of the shim's own."""
    lookup: bool = True
    """Of an exec: as of a `Step`."""


def section(name: str, guard: Callable[[Facts], bool], *rows: Step | End) -> tuple[Step | End, ...]:
    """Return rows under the name of a section, each holding only if the section's guard does.

    A row without a name of its own has the section's.
    """

    def guarded(row: Step | End) -> Step | End:
        own = row.holds
        return row.but(
            name=f"{name}: {row.name}" if row.name else name, holds=lambda facts: guard(facts) and own(facts)
        )

    return tuple(guarded(row) for row in rows)


def always(_: Facts) -> bool:
    """Hold for all facts that a section's guard lets through."""
    return True
