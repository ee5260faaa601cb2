"""Deciding what to do, without I/O, clock or environment. The reference pages of the docs are rendered from here.

A table is read from top to bottom, and the first row that holds counts. `settle` is the only loop: wrapping a phase,
`fix`, `check` and the tests' models of builds are worlds that do its steps, each in its own way.
"""

from __future__ import annotations

from shim.policy import exporter, restorer
from shim.policy.row import End, Step

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol, TypeVar

    from shim.policy.facts import Facts

    class HasFacts(Protocol):
        """A frozen value that holds what was found so far."""

        @property
        def facts(self) -> Facts:
            """What is decided on."""

    Seen = TypeVar("Seen", bound=HasFacts)

    class World(Protocol[Seen]):
        """What can be asked and run."""

        def do(self, step: Step, seen: Seen) -> Seen:
            """Do a step, and return what is known then."""


TABLES: dict[str, tuple[Step | End, ...]] = {
    "analyzer": exporter.ANALYZER,
    "restorer": restorer.RESTORER,
    "exporter": exporter.EXPORTER,
    "other": exporter.OTHER,
}
FAILING = ("unrepaired", "not-in-daemon")
"""The outcomes that `--strict` makes an error of."""


def decide(facts: Facts) -> Step | End:
    """Return the first row of the phase's table that holds. The tables are complete: one always does."""
    return next(row for row in TABLES[facts.phase] if row.holds(facts))


def settle(seen: Seen, world: World[Seen]) -> tuple[Seen, End]:
    """Decide, do the step and decide again, until an end is reached; return what is known then, and the end."""
    while isinstance(row := decide(seen.facts), Step):
        seen = world.do(row, seen)
    return seen, row
