"""The decision tables: complete, in order, and never worse than the bare phase."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from shim.policy import TABLES, decide, settle
from shim.policy.evidence import EVIDENCE, Clues, certainty, weigh
from shim.policy.facts import Facts
from shim.policy.row import End, Step
from shim.record import Record

BUILDS: Any = ("daemon", "registry", "unknown")
BEFORE: Any = ("unasked", "absent", "denied", "silent")
APIS: Any = ("unset", "older", "affected", "newer")
FILES: Any = ("readable", "missing", "broken")
POLICIES: Any = ("never", "if-not-present", "always")
KINDS: Any = ("empty", "name", "id", "digest")
YES_NO: Any = (False, True)


def restorer_starts() -> Iterator[Facts]:
    """All facts before the restorer runs, in the form in which they are gathered."""
    for about, api, group, extensions in itertools.product(YES_NO, APIS, FILES, YES_NO):
        yield Facts(phase="restorer", about=about, api=api, group=group, extensions=extensions)
    for analyzed, run_image, target, image, reference, named in itertools.product(
        FILES, YES_NO, YES_NO, YES_NO, KINDS, YES_NO
    ):
        yield Facts(
            phase="restorer",
            analyzed=analyzed,
            run_image=run_image,
            target=target,
            image=image,
            reference=reference,
            named=named,
        )
    for build, policy, daemon, reference, named in itertools.product(BUILDS, POLICIES, BEFORE, KINDS, YES_NO):
        yield Facts(phase="restorer", build=build, pull_policy=policy, daemon=daemon, reference=reference, named=named)


def exporter_starts() -> Iterator[Facts]:
    for build, daemon, reference, image in itertools.product(BUILDS[:2], BEFORE, KINDS, YES_NO):
        yield Facts(phase="exporter", build=build, daemon=daemon, reference=reference, image=image)


def after_a_run(facts: Facts, step: Step) -> Iterator[Facts]:
    """Yield all that a run of the restorer can leave; one that could not be given a group runs as called."""
    asked = ("silent", "lacks", "has") if step.asks else (facts.daemon,)
    for status in ("succeeded", "failed", "killed"):
        for daemon in asked if status != "killed" else ("unasked", *asked):
            for reference, rewritten in ((facts.reference, False), ("digest", True), ("id", True)):
                for touched, analyzed in itertools.product(YES_NO, FILES):
                    for run in ("as-called",) if step.lookup else ("without-lookup", "as-called"):
                        yield facts.but(
                            run=run,
                            preventable=step.lookup or run == "without-lookup",
                            status=status,
                            daemon=daemon,
                            reference=reference,
                            rewritten=rewritten,
                            touched=rewritten or touched,
                            retried=facts.run != "none",
                            analyzed=analyzed,
                        )


def answers(facts: Facts, step: Step) -> Iterator[Facts]:
    """Yield all that can be known after a step."""
    if step.action == "run":
        yield from after_a_run(facts, step)
    elif step.action == "ask-name":
        yield from (facts.but(daemon=daemon) for daemon in ("silent", "lacks", "has"))
    elif step.action == "ask-reference":
        yield from (facts.but(resolves=found) for found in ("same", "other", "nowhere", "silent"))
    else:
        after = (facts.daemon, "has", "lacks", "silent")
        yield from (facts.but(pull_tried=True, daemon=daemon) for daemon in after)


def follow(facts: Facts) -> Iterator[tuple[Facts, Step | End]]:
    """Yield every decision on every way that a run can take from these facts on."""
    seen: set[Facts] = set()
    ways = [facts]
    while ways:
        facts = ways.pop()
        if facts in seen:
            continue
        seen.add(facts)
        row = decide(facts)
        yield facts, row
        if isinstance(row, Step):
            ways.extend(answers(facts, row))


STARTS = [*restorer_starts(), *exporter_starts()]
ALL = [decision for start in STARTS for decision in follow(start)]
ENDS = [(facts, row) for facts, row in ALL if isinstance(row, End)]
STEPS = [(facts, row) for facts, row in ALL if isinstance(row, Step)]


def test_there_are_many_ways_and_each_ends() -> None:
    assert len(ALL) > 4000
    assert len(ENDS) > 3000


def test_every_row_is_reached_on_some_way() -> None:
    reached = {row.name for _, row in ALL}
    extra = [Facts(phase="exporter", about=True), Facts(phase="exporter", api="newer")]
    extra += [Facts(phase="exporter", analyzed="missing"), Facts(phase="exporter", analyzed="broken")]
    extra += [Facts(phase="exporter", run_image=False)]
    reached |= {decide(facts).name for facts in extra}
    for phase in ("restorer", "exporter"):
        assert {row.name for row in TABLES[phase]} - reached == set()


def test_a_name_stands_for_one_row() -> None:
    rows = {id(row): row.name for table in TABLES.values() for row in table}
    assert len(rows) == len(set(rows.values()))


def test_the_contract_s_rows_are_there() -> None:
    names = {row.name for table in TABLES.values() for row in table}
    assert {name.partition(":")[0] for name in names} == {
        *("nothing-to-do", "no-switch", "registry-build", "daemon-build", "daemon-out-of-reach", "likely", "unknown"),
        *("takes-it", "repairs", "heals", "note", "restorer failed", "left unreadable"),
    }


EVERYTHING = {
    "about": YES_NO,
    "api": APIS,
    "named": YES_NO,
    "group": FILES,
    "extensions": YES_NO,
    "analyzed": FILES,
    "run_image": YES_NO,
    "target": YES_NO,
    "image": YES_NO,
    "reference": KINDS,
    "build": BUILDS,
    "pull_policy": POLICIES,
    "daemon": BEFORE,
}


@pytest.mark.parametrize("phase", ["analyzer", "restorer", "exporter", "other"])
def test_every_combination_of_facts_before_anything_runs(phase: Any) -> None:
    """Also those that are never gathered together."""
    count = 0
    for values in itertools.product(*EVERYTHING.values()):
        f = Facts(phase=phase, **dict(zip(EVERYTHING, values, strict=True)))
        row = decide(f)
        count += 1
        concerns_us = not f.about and f.api == "affected" and f.analyzed == "readable" and f.run_image
        if phase == "restorer":
            concerns_us &= f.group == "readable" and f.extensions and not f.target
        if phase == "other" or not (concerns_us or (phase == "analyzer" and not f.about and f.api == "affected")):
            assert isinstance(row, End), f
            assert (row.outcome, row.finish, row.write, row.lookup) == ("passed-through", "exec", "nothing", True), f
        if isinstance(row, Step):
            assert f.build != "registry" or (row.action == "run" and not f.image and not f.named), f
            assert row.lookup or (phase == "restorer" and concerns_us), f
            continue
        assert row.finish == "exec", f"nothing was run or asked yet: {f}"
        assert row.write != "id", f"nothing was asked yet: {f}"
        if phase == "restorer" and f.build == "daemon":
            can_be_asked = concerns_us and f.image and f.daemon == "unasked"
            assert not can_be_asked, f"an ID would be left to write: {f}"
        if row.write == "name":
            assert f.reference in ("empty", "id"), f
            assert f.image, f
        assert row.lookup or (phase == "restorer" and concerns_us and f.named), f
    assert count == 331_776


def test_no_exec_if_something_is_left_to_write() -> None:
    """The restorer writes its reference over ours; what is to stand behind it needs us behind it."""
    for facts, row in ENDS:
        if facts.phase == "restorer" and row.finish == "exec":
            assert row.write != "id", facts
            assert not (facts.build == "daemon" and facts.daemon == "has"), facts
            assert not (facts.rewritten and facts.daemon == "has"), facts


def test_what_is_only_taken_for_the_restorer_is_not_execed_without_the_lookup() -> None:
    """It may be a launcher that is not known as one, which fails on a flag of the restorer's: it has a second try."""
    for facts, row in ENDS:
        if facts.phase == "restorer" and not facts.named and row.finish == "exec":
            assert row.lookup, facts


def test_without_the_lookup_it_fails_only_if_it_fails_as_called_too() -> None:
    for facts, row in ALL:
        if (facts.run, facts.status) == ("without-lookup", "failed") and facts.analyzed == "readable":
            again = isinstance(row, Step) and row.action == "run" and row.lookup
            assert again or facts.touched or facts.retried, facts


def test_if_nothing_indicates_the_build_type_nothing_is_pulled() -> None:
    unknown = [(facts, row) for facts, row in STEPS if facts.build == "unknown"]
    assert len(unknown) > 100
    assert [facts for facts, row in unknown if row.action == "pull"] == []


def test_no_image_id_is_written_in_a_registry_build() -> None:
    assert [row for facts, row in ENDS if facts.build == "registry" and row.write == "id"] == []


def test_a_registry_build_never_asks_the_daemon_and_keeps_the_lookup() -> None:
    for facts, row in ALL:
        if facts.build == "registry" and facts.image:
            assert isinstance(row, End), facts
            assert row.lookup, facts


def test_an_id_is_only_written_if_the_daemon_has_the_image() -> None:
    assert [facts for facts, row in ENDS if row.write == "id" and facts.daemon != "has"] == []


def test_only_a_known_daemon_build_pulls_and_never_under_never() -> None:
    for facts, row in STEPS:
        if row.action == "pull":
            assert facts.phase == "restorer"
            assert facts.build == "daemon"
            assert facts.pull_policy != "never"
            assert not facts.pull_tried


def test_an_id_is_written_after_the_restorer_or_before_an_exporter() -> None:
    for facts, row in ENDS:
        if row.write == "id" and facts.phase == "restorer":
            assert row.finish == "return", facts
            assert facts.status == "succeeded", facts


def test_nothing_is_written_after_a_restorer_that_did_not_succeed() -> None:
    for facts, row in ENDS:
        if facts.status in ("failed", "killed"):
            assert row.write == "nothing", facts


def test_the_restorer_runs_at_most_twice_as_our_child() -> None:
    for facts, row in STEPS:
        if row.action == "run" and facts.run != "none":
            assert not facts.retried
            assert not facts.touched
            assert row.lookup is (facts.run == "without-lookup")
            assert row.lookup or (facts.daemon == "has" and facts.preventable)


def test_a_signal_ends_it() -> None:
    for facts, row in ALL:
        if facts.status == "killed":
            assert isinstance(row, End), facts
            assert row.finish == "return", facts


def test_only_never_refuses() -> None:
    refused = [facts for facts, row in ENDS if row.finish == "refuse"]
    assert refused
    for facts in refused:
        assert (facts.build, facts.pull_policy, facts.daemon) == ("daemon", "never", "lacks")
        assert facts.run == "none"


def test_no_image_id_stays_in_a_registry_build_at_the_exporter() -> None:
    for facts, row in ENDS:
        if facts.phase == "exporter" and facts.build == "registry" and facts.reference == "id" and facts.image:
            assert row.write == "name"


def test_no_empty_reference_beside_a_name_reaches_the_exporter() -> None:
    for facts, row in ENDS:
        if facts.phase == "exporter" and facts.reference == "empty" and facts.image:
            assert row.write in ("name", "id"), facts


def test_the_name_kept_is_a_warning_only_if_the_build_is_not_known() -> None:
    kept = [(facts, row) for facts, row in ENDS if row.outcome == "kept-name"]
    assert {facts.build for facts, _ in kept} == {"daemon", "unknown"}
    for facts, row in kept:
        assert row.level == ("info" if facts.build == "daemon" else "warn"), facts


R: Any = {"phase": "restorer"}
D: Any = {"phase": "restorer", "build": "daemon"}
OTHER: Any = {"named": False}
WELL: Any = {"run": "as-called", "status": "succeeded"}
WITHOUT: Any = {"run": "without-lookup", "status": "succeeded"}
REWRITTEN: Any = {**WELL, "reference": "digest", "rewritten": True, "touched": True}
FAILED: Any = {"run": "as-called", "status": "failed"}
FAILED_WITHOUT: Any = {"run": "without-lookup", "status": "failed"}
E: Any = {"phase": "exporter", "reference": "digest", "build": "daemon"}
CONTRACT: list[tuple[Any, str, str]] = [
    # The facts, the row, and what it does: a step, or an end's outcome, with what differs from the usual.
    ({**R, "about": True}, "nothing-to-do: version or help", "passed-through exec debug"),
    ({**R, "api": "older"}, "nothing-to-do: Platform API", "passed-through exec debug"),
    ({**R, "api": "newer"}, "nothing-to-do: Platform API", "passed-through exec debug"),
    ({**R, "api": "unset"}, "nothing-to-do: Platform API", "passed-through exec debug"),
    ({**R, "group": "missing"}, "nothing-to-do: no group.toml", "passed-through exec debug"),
    ({**R, "group": "broken"}, "nothing-to-do: bad group.toml", "passed-through exec warn"),
    ({**R, "extensions": False}, "nothing-to-do: no extension", "passed-through exec debug"),
    ({**R, "analyzed": "missing"}, "nothing-to-do: no analyzed.toml", "passed-through exec debug"),
    ({**R, "analyzed": "broken"}, "nothing-to-do: bad analyzed.toml", "passed-through exec warn"),
    ({**R, "run_image": False}, "nothing-to-do: no run image", "passed-through exec warn"),
    ({**R, "target": True}, "nothing-to-do: target known", "passed-through exec debug"),
    ({**R, "image": False}, "no-switch", "no-lookup exec without"),
    ({**R, "image": False, "build": "registry"}, "no-switch", "no-lookup exec without"),
    ({**R, **OTHER, "image": False}, "no-switch: another program", "run without"),
    ({**R, **WITHOUT, "image": False}, "no-switch: after another program", "no-lookup return"),
    ({**R, **FAILED_WITHOUT, "image": False}, "restorer failed: retry as called", "run"),
    ({**R, **FAILED, "image": False, "retried": True}, "restorer failed", "unchanged return"),
    ({**R, "build": "registry"}, "registry-build", "not-a-daemon-build exec debug"),
    ({**R, **OTHER, "build": "registry"}, "registry-build", "not-a-daemon-build exec debug"),
    ({**R, "build": "registry", "reference": "digest"}, "registry-build", "not-a-daemon-build exec debug"),
    ({**R, "build": "registry", "reference": "empty"}, "registry-build: empty reference", "filled exec name"),
    ({**D, "daemon": "absent"}, "daemon-out-of-reach", "kept-name exec without"),
    ({**D, "daemon": "denied"}, "daemon-out-of-reach", "kept-name exec without"),
    ({**D, "daemon": "silent"}, "daemon-out-of-reach", "kept-name exec without"),
    ({**D, **OTHER, "daemon": "silent"}, "daemon-out-of-reach: another program", "run without"),
    (
        {**D, "daemon": "silent", "reference": "empty"},
        "daemon-out-of-reach: empty reference",
        "filled exec without name",
    ),
    ({**R, "daemon": "denied"}, "daemon-out-of-reach: likely", "kept-name exec without warn"),
    ({**R, **OTHER, "daemon": "denied"}, "daemon-out-of-reach: likely: another program", "run without"),
    (
        {**R, "daemon": "denied", "reference": "empty"},
        "daemon-out-of-reach: likely: empty reference",
        "filled exec without name warn",
    ),
    ({**D}, "daemon-build: run and ask", "run without asks"),
    ({**D, "pull_policy": "never"}, "daemon-build: ask", "ask-name"),
    ({**D, "pull_policy": "always"}, "daemon-build: ask", "ask-name"),
    ({**D, "pull_policy": "always", "daemon": "has"}, "daemon-build: pull always", "pull"),
    ({**D, "pull_policy": "always", "daemon": "lacks"}, "daemon-build: pull always", "pull"),
    ({**D, "pull_policy": "always", "daemon": "has", "pull_tried": True}, "daemon-build: run", "run without"),
    (
        {**D, "pull_policy": "always", "daemon": "lacks", "pull_tried": True},
        "daemon-build: not to be had",
        "not-in-daemon exec warn",
    ),
    ({**D, "pull_policy": "never", "daemon": "has"}, "daemon-build: run", "run without"),
    ({**D, "pull_policy": "never", "daemon": "lacks"}, "daemon-build: never", "not-in-daemon refuse error"),
    ({**D, **WITHOUT, "daemon": "has"}, "daemon-build", "prevented return id"),
    ({**D, **WITHOUT, "daemon": "has", "reference": "empty"}, "daemon-build", "prevented return id"),
    ({**D, **WITHOUT, "daemon": "lacks"}, "daemon-build: pull", "pull"),
    (
        {**D, **WITHOUT, "daemon": "lacks", "pull_tried": True},
        "daemon-build: can't be pulled",
        "not-in-daemon exec warn",
    ),
    (
        {**D, **WELL, "daemon": "lacks", "pull_tried": True, "retried": True},
        "daemon-build: can't be pulled, retried",
        "not-in-daemon return warn",
    ),
    ({**D, **REWRITTEN, "daemon": "has", "retried": True}, "daemon-build: retried", "retried return id"),
    ({**D, **WITHOUT, "daemon": "silent"}, "daemon-out-of-reach: after the restorer", "kept-name return"),
    (
        {**D, **WITHOUT, "daemon": "silent", "reference": "empty"},
        "daemon-out-of-reach: empty reference, after the restorer",
        "filled return name",
    ),
    ({**D, **REWRITTEN, "daemon": "absent"}, "daemon-out-of-reach: rewritten", "kept-name return name"),
    ({**R, **WITHOUT, "daemon": "denied"}, "daemon-out-of-reach: likely: after the restorer", "kept-name return warn"),
    (
        {**R, **WITHOUT, "daemon": "denied", "reference": "empty"},
        "daemon-out-of-reach: likely: empty reference, after the restorer",
        "filled return name warn",
    ),
    ({**R, **REWRITTEN, "daemon": "denied"}, "daemon-out-of-reach: likely: rewritten", "kept-name return name warn"),
    ({**D, **FAILED_WITHOUT, "daemon": "has"}, "restorer failed: retry as called", "run"),
    ({**D, **FAILED_WITHOUT, "daemon": "has", "touched": True}, "restorer failed", "unchanged return"),
    ({**D, **FAILED, "daemon": "has", "retried": True}, "restorer failed", "unchanged return"),
    ({**D, "run": "without-lookup", "status": "killed", "daemon": "lacks"}, "restorer failed", "unchanged return"),
    ({**R}, "unknown: run and ask", "run asks"),
    ({**R, **OTHER}, "unknown: run and ask", "run asks"),
    ({**R, "daemon": "absent"}, "unknown: run", "run"),
    ({**R, "daemon": "silent"}, "unknown: run", "run"),
    ({**R, **FAILED, "daemon": "has"}, "restorer failed: retry without lookup", "run without"),
    ({**R, **FAILED, "daemon": "has", "touched": True}, "restorer failed", "unchanged return"),
    ({**R, **FAILED_WITHOUT, "daemon": "has", "retried": True}, "restorer failed", "unchanged return"),
    ({**R, **FAILED, "daemon": "lacks"}, "restorer failed", "unchanged return"),
    ({**D, **FAILED, "daemon": "has", "preventable": False}, "restorer failed", "unchanged return"),
    ({**R, "run": "as-called", "status": "killed", "daemon": "has"}, "restorer failed", "unchanged return"),
    ({**R, **WITHOUT, "daemon": "has", "retried": True}, "likely: retried", "retried return id"),
    ({**R, **WELL, "daemon": "has", "reference": "empty"}, "likely: empty reference", "filled return id"),
    ({**R, **WELL, "daemon": "has"}, "likely: unchanged", "unchanged return"),
    ({**R, **REWRITTEN, "daemon": "has"}, "likely: ask for the reference", "ask-reference"),
    ({**R, **REWRITTEN, "daemon": "has", "resolves": "same"}, "likely: resolves", "resolves return"),
    ({**R, **REWRITTEN, "daemon": "has", "resolves": "other"}, "likely: reverted", "reverted return id"),
    ({**R, **REWRITTEN, "daemon": "has", "resolves": "nowhere"}, "likely: reverted", "reverted return id"),
    ({**R, **REWRITTEN, "daemon": "has", "resolves": "silent"}, "likely: no answer", "unrepaired return warn"),
    (
        {**R, **WELL, "daemon": "lacks", "reference": "empty"},
        "unknown: empty reference, not in the daemon",
        "daemon-unknown return warn",
    ),
    ({**R, **WELL, "daemon": "silent", "reference": "empty"}, "unknown: empty reference", "filled return name"),
    ({**R, **WELL, "daemon": "absent", "reference": "empty"}, "unknown: empty reference", "filled return name"),
    ({**R, **WELL, "daemon": "lacks"}, "unknown", "daemon-unknown return debug"),
    ({**R, **WELL, "daemon": "absent"}, "unknown", "daemon-unknown return debug"),
    ({**R, **REWRITTEN, "daemon": "absent"}, "unknown: rewritten", "daemon-unknown return warn"),
    ({**R, **FAILED, "daemon": "absent", "reference": "empty"}, "restorer failed", "unchanged return"),
    ({**R, **WELL, "analyzed": "broken"}, "left unreadable", "unrepaired return warn"),
    ({**R, **FAILED, "analyzed": "missing"}, "left unreadable", "unrepaired return warn"),
    ({**E, "about": True}, "nothing-to-do: version or help", "passed-through exec debug"),
    ({**E, "api": "newer"}, "nothing-to-do: Platform API", "passed-through exec debug"),
    ({**E, "analyzed": "missing"}, "nothing-to-do: no analyzed.toml", "passed-through exec debug"),
    ({**E, "analyzed": "broken"}, "nothing-to-do: bad analyzed.toml", "passed-through exec warn"),
    ({**E, "run_image": False}, "nothing-to-do: no run image", "passed-through exec warn"),
    ({**E, "image": False}, "takes-it", "passed-through exec debug"),
    ({**E, "image": False, "reference": "id", "build": "registry"}, "takes-it", "passed-through exec debug"),
    ({**E, "reference": "name"}, "takes-it", "passed-through exec debug"),
    ({**E, "reference": "id"}, "takes-it", "passed-through exec debug"),
    ({**E, "reference": "digest", "build": "registry"}, "takes-it", "passed-through exec debug"),
    ({**E, "reference": "id", "build": "registry"}, "heals", "name-restored exec name"),
    ({**E, "reference": "empty", "build": "registry"}, "heals: empty reference", "filled exec name"),
    ({**E}, "repairs: ask", "ask-name"),
    ({**E, "reference": "empty"}, "repairs: ask", "ask-name"),
    ({**E, "reference": "empty", "daemon": "has"}, "repairs: empty reference", "filled exec id"),
    ({**E, "reference": "empty", "daemon": "lacks"}, "repairs: empty reference, no image", "filled exec name warn"),
    ({**E, "reference": "empty", "daemon": "absent"}, "repairs: empty reference, no image", "filled exec name warn"),
    ({**E, "daemon": "has"}, "repairs: ask for the reference", "ask-reference"),
    ({**E, "daemon": "lacks"}, "repairs: ask for the reference", "ask-reference"),
    ({**E, "daemon": "has", "resolves": "same"}, "repairs: resolves", "resolves exec"),
    ({**E, "daemon": "has", "resolves": "other"}, "repairs", "reverted exec id"),
    ({**E, "daemon": "has", "resolves": "nowhere"}, "repairs", "reverted exec id"),
    ({**E, "daemon": "has", "resolves": "silent"}, "repairs: no answer", "unrepaired exec warn"),
    ({**E, "daemon": "lacks", "resolves": "other"}, "repairs: resolves", "resolves exec"),
    ({**E, "daemon": "lacks", "resolves": "nowhere"}, "repairs: not in the daemon", "not-in-daemon exec warn"),
    ({**E, "daemon": "lacks", "resolves": "silent"}, "repairs: no answer", "unrepaired exec warn"),
    ({**E, "daemon": "absent"}, "repairs: no answer", "unrepaired exec warn"),
    ({**E, "daemon": "silent"}, "repairs: no answer", "unrepaired exec warn"),
    ({"phase": "analyzer"}, "note", "noted exec debug"),
    ({"phase": "analyzer", "noted": False}, "note: not written", "passed-through exec debug"),
    ({"phase": "analyzer", "about": True}, "nothing-to-do: version or help", "passed-through exec debug"),
    ({"phase": "analyzer", "api": "newer"}, "nothing-to-do: Platform API", "passed-through exec debug"),
    ({"phase": "other"}, "nothing-to-do: another phase", "passed-through exec debug"),
]


def in_words(row: Step | End) -> str:
    if isinstance(row, Step):
        words = [row.action, "" if row.lookup else "without", "asks" if row.asks else ""]
    else:
        words = [row.outcome, row.finish, "" if row.lookup else "without"]
        words += ["" if row.write == "nothing" else row.write, "" if row.level == "info" else row.level]
    return " ".join(word for word in words if word)


@pytest.mark.parametrize(
    ("facts", "name", "does"), CONTRACT, ids=[f"{case[1]}, {n}" for n, case in enumerate(CONTRACT)]
)
def test_the_contract(facts: Any, name: str, does: str) -> None:
    row = decide(Facts(**facts))
    assert (row.name, in_words(row)) == (name, does)


def test_every_end_of_the_tables_is_in_the_contract() -> None:
    assert {name for _, name, _ in CONTRACT} == {row.name for table in TABLES.values() for row in table}


def test_the_first_row_that_holds_counts() -> None:
    assert decide(Facts(phase="restorer", about=True, api="newer")).name == "nothing-to-do: version or help"
    assert decide(Facts(phase="restorer", api="newer", group="missing")).name == "nothing-to-do: Platform API"


class Found(Record):
    facts: Facts
    steps: tuple[str, ...] = ()


class Telling:
    """A world that tells what it was asked to do."""

    def do(self, step: Step, seen: Found) -> Found:
        facts = seen.facts.but(daemon="has") if step.action == "ask-name" else seen.facts.but(resolves="nowhere")
        return Found(facts=facts, steps=(*seen.steps, step.action))


def test_settle_does_steps_until_an_end_and_changes_nothing_in_place() -> None:
    start = Found(facts=Facts(**E))
    seen, row = settle(start, Telling())
    assert (seen.steps, row.name) == (("ask-name", "ask-reference"), "repairs")
    assert start == Found(facts=Facts(**E))


@pytest.mark.parametrize(
    ("clues", "build", "by"),
    [
        (Clues(), "unknown", ""),
        (Clues(option=True, note=False), "daemon", "option"),
        (Clues(option=False, note=True), "registry", "option"),
        (Clues(note=True, marker=False), "daemon", "note"),
        (Clues(note=False, marker=True), "registry", "note"),
        (Clues(marker=True, use_daemon=False), "daemon", "marker"),
        (Clues(marker=False, use_daemon=True), "registry", "marker"),
        (Clues(use_daemon=True, use_layout=True), "daemon", "CNB_USE_DAEMON"),
        (Clues(use_daemon=False, previous="id"), "registry", "CNB_USE_DAEMON"),
        (Clues(use_layout=True, previous="id"), "registry", "CNB_USE_LAYOUT"),
        (Clues(use_layout=False, previous="id"), "daemon", "previous image"),
        (Clues(previous="digest", policy_given=True), "registry", "previous image"),
        (Clues(previous="name", policy_given=True), "daemon", "pull policy"),
        (Clues(previous="empty", policy_given=True), "daemon", "pull policy"),
    ],
)
def test_the_first_conclusive_evidence_counts(clues: Clues, build: str, by: str) -> None:
    assert weigh(clues) == (build, by)


def test_the_evidence_is_in_the_order_of_the_contract() -> None:
    assert [evidence.name for evidence in EVIDENCE] == [
        *("option", "note", "marker", "CNB_USE_DAEMON", "CNB_USE_LAYOUT", "previous image", "pull policy")
    ]


@pytest.mark.parametrize(
    ("build", "daemon", "sure"),
    [
        ("daemon", "absent", "known"),
        ("registry", "has", "known"),
        ("unknown", "has", "likely"),
        ("unknown", "denied", "likely"),
        ("unknown", "lacks", "unknown"),
        ("unknown", "silent", "unknown"),
        ("unknown", "absent", "unknown"),
        ("unknown", "unasked", "unknown"),
    ],
)
def test_how_certain_it_is(build: str, daemon: str, sure: str) -> None:
    assert certainty(Facts(phase="restorer").but(build=build, daemon=daemon)) == sure
