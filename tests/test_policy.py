"""The tables: complete, in order, and never worse than the bare phase."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import pytest

from shim.policy.facts import Clues, Facts, Verdict
from shim.policy.rows import EVIDENCE, TABLES, Row, certainty, decide, weigh

BUILDS: Any = ("daemon", "registry", "unsaid")
BEFORE: Any = ("unasked", "absent", "denied", "silent")
APIS: Any = ("unset", "older", "affected", "newer")
FILES: Any = ("readable", "missing", "broken")
POLICIES: Any = ("never", "if-not-present", "always")
KINDS: Any = ("empty", "name", "id", "digest")


def restorer_starts() -> Iterator[Facts]:
    """All facts before the restorer runs, in the form in which they are gathered."""
    for about, api, group, extensions in itertools.product((False, True), APIS, FILES, (False, True)):
        yield Facts(phase="restorer", about=about, api=api, group=group, extensions=extensions)
    for analyzed, run_image, target, extend, image, reference in itertools.product(
        FILES, (False, True), (False, True), (False, True), (False, True), KINDS
    ):
        yield Facts(
            phase="restorer",
            analyzed=analyzed,
            run_image=run_image,
            target=target,
            extend=extend,
            image=image,
            reference=reference,
        )
    for build, policy, engine, reference in itertools.product(BUILDS, POLICIES, BEFORE, KINDS):
        yield Facts(phase="restorer", build=build, policy=policy, engine=engine, reference=reference)


def exporter_starts() -> Iterator[Facts]:
    for build, engine, reference, image in itertools.product(BUILDS[:2], BEFORE, KINDS, (False, True)):
        yield Facts(phase="exporter", build=build, engine=engine, reference=reference, image=image)


def follow(facts: Facts) -> Iterator[tuple[Facts, Row]]:
    """Yield every decision on every way that a run can take from these facts on."""
    row = decide(facts)
    yield facts, row
    verdict = row.verdict
    answers: tuple[Facts, ...] = ()
    if verdict.run == "parent":
        asked = ("silent", "lacks", "has") if verdict.step == "ask-name" else (facts.engine,)
        answers = tuple(
            facts.but(
                status=status,
                engine=engine,
                reference=reference,
                rewritten=rewritten,
                touched=rewritten or touched,
                retried=facts.status != "not-run",
                analyzed=analyzed,
            )
            for status in ("ended-well", "failed", "killed")
            for engine in (asked if status != "killed" else ("unasked", *asked))
            for reference, rewritten in ((facts.reference, False), ("digest", True), ("id", True))
            for touched in (False, True)
            for analyzed in ("readable", "broken", "missing")
        )
    elif verdict.step == "ask-name":
        answers = tuple(facts.but(engine=engine) for engine in ("silent", "lacks", "has"))
    elif verdict.step == "ask-reference":
        answers = tuple(facts.but(resolves=found) for found in ("same", "other", "nowhere", "silent"))
    elif verdict.step == "pull":
        after = (facts.engine, "has", "lacks", "silent")
        answers = tuple(facts.but(pull_tried=True, engine=engine) for engine in after)
    for answer in answers:
        yield from follow(answer)


STARTS = [*restorer_starts(), *exporter_starts()]
ALL = [step for start in STARTS for step in follow(start)]


def last(verdict: Verdict) -> bool:
    return verdict.step == "nothing" and verdict.run != "parent"


def test_there_are_many_ways_and_each_ends() -> None:
    assert len(ALL) > 4000
    assert sum(last(row.verdict) for _, row in ALL) > 3000


def test_every_row_is_reached_on_some_way() -> None:
    reached = {id(row) for _, row in ALL}
    for phase in ("restorer", "exporter"):
        for row in TABLES[phase]:
            extra = [Facts(phase="exporter", about=True), Facts(phase="exporter", api="newer")]
            extra += [Facts(phase="exporter", analyzed="missing"), Facts(phase="exporter", analyzed="broken")]
            extra += [Facts(phase="exporter", run_image=False)]
            assert id(row) in reached | {id(decide(facts)) for facts in extra}, row.when


EVERYTHING = {
    "about": (False, True),
    "api": APIS,
    "group": FILES,
    "extensions": (False, True),
    "analyzed": FILES,
    "run_image": (False, True),
    "target": (False, True),
    "extend": (False, True),
    "image": (False, True),
    "reference": KINDS,
    "build": BUILDS,
    "policy": POLICIES,
    "engine": BEFORE,
}


@pytest.mark.parametrize("phase", ["analyzer", "restorer", "exporter", "other"])
def test_every_combination_of_facts_before_anything_runs(phase: Any) -> None:
    """Also those that are never gathered together."""
    count = 0
    for values in itertools.product(*EVERYTHING.values()):
        f = Facts(phase=phase, **dict(zip(EVERYTHING, values, strict=True)))
        verdict = decide(f).verdict
        count += 1
        concerns_us = not f.about and f.api == "affected" and f.analyzed == "readable" and f.run_image
        if phase == "restorer":
            concerns_us &= f.group == "readable" and f.extensions and not f.target and not f.extend
        if phase == "other" or not (concerns_us or (phase == "analyzer" and not f.about and f.api == "affected")):
            assert verdict.but(level="info") == Verdict(outcome="passed-through", run="exec"), f
        if verdict.run == "refuse":
            raise AssertionError(f"nothing was asked yet: {f}")
        if f.build == "registry":
            assert verdict.write != "id", f
            assert verdict.step == "nothing", f
        if phase == "restorer" and verdict.run == "exec" and f.build == "daemon":
            can_be_asked = concerns_us and f.image and f.engine == "unasked"
            assert not can_be_asked, f"an ID would be left to write: {f}"
        if verdict.run == "exec" and verdict.write == "name":
            assert f.reference in ("empty", "id"), f
            assert f.image, f
        assert verdict.lookup or (phase == "restorer" and concerns_us), f
    assert count == 331_776


def test_no_exec_where_something_is_left_to_write() -> None:
    """The restorer writes its reference over ours; what is to stand behind it needs us behind it."""
    for facts, row in ALL:
        if facts.phase == "restorer" and row.verdict.run == "exec":
            assert row.verdict.write != "id", facts
            assert not (facts.build == "daemon" and facts.engine == "has"), facts
            assert not (facts.rewritten and facts.engine == "has"), facts


def test_where_nothing_says_which_build_it_is_nothing_is_pulled() -> None:
    unsaid = [(facts, row) for facts, row in ALL if facts.build == "unsaid"]
    assert len(unsaid) > 1000
    assert [facts for facts, row in unsaid if row.verdict.step == "pull"] == []


def test_no_reference_of_the_daemon_is_written_in_a_build_known_to_be_none_of_a_daemon() -> None:
    assert [row for facts, row in ALL if facts.build == "registry" and row.verdict.write == "id"] == []


def test_a_build_known_to_be_none_of_a_daemon_never_asks_the_daemon_and_keeps_the_lookup() -> None:
    for facts, row in ALL:
        if facts.build == "registry" and facts.image:
            assert row.verdict.step == "nothing", facts
            assert row.verdict.lookup, facts


def test_an_id_is_only_written_where_the_daemon_has_the_image() -> None:
    assert [facts for facts, row in ALL if row.verdict.write == "id" and facts.engine != "has"] == []


def test_only_a_known_daemon_build_pulls_and_never_under_never() -> None:
    for facts, row in ALL:
        if row.verdict.step == "pull":
            assert facts.phase == "restorer"
            assert facts.build == "daemon"
            assert facts.policy != "never"
            assert not facts.pull_tried


def test_what_is_written_is_written_once_the_phase_can_not_overwrite_it_unseen() -> None:
    """An ID is written after the restorer, or before an exporter; a name also before an `exec`."""
    for facts, row in ALL:
        if row.verdict.write == "id" and facts.phase == "restorer":
            assert row.verdict.run == "nothing", facts
            assert facts.status == "ended-well", facts


def test_nothing_is_written_after_a_restorer_that_did_not_end_well() -> None:
    for facts, row in ALL:
        if facts.status in ("failed", "killed"):
            assert row.verdict.write == "nothing", facts


def test_the_restorer_runs_at_most_twice_as_our_child_and_only_again_with_the_image_in_the_daemon() -> None:
    for facts, row in ALL:
        if row.verdict.run == "parent" and facts.status != "not-run":
            assert not facts.retried
            assert facts.engine == "has"
            assert not facts.touched
            assert not row.verdict.lookup


def test_a_signal_ends_it() -> None:
    for facts, row in ALL:
        if facts.status == "killed":
            assert row.verdict.run == "nothing", facts


def test_only_never_refuses() -> None:
    for facts, row in ALL:
        if row.verdict.run == "refuse":
            assert (facts.build, facts.policy, facts.engine) == ("daemon", "never", "lacks")
            assert facts.status == "not-run"


def test_no_bare_id_stays_in_a_registry_build_at_the_exporter() -> None:
    for facts, row in ALL:
        if facts.phase == "exporter" and facts.build == "registry" and facts.reference == "id" and facts.image:
            assert row.verdict.write == "name"


def test_no_empty_reference_beside_a_name_reaches_the_exporter() -> None:
    for facts, row in ALL:
        if facts.phase == "exporter" and facts.reference == "empty" and facts.image and last(row.verdict):
            assert row.verdict.write in ("name", "id"), facts


R: Any = {"phase": "restorer"}
D: Any = {"phase": "restorer", "build": "daemon"}
WELL: Any = {"status": "ended-well"}
REWRITTEN: Any = {"status": "ended-well", "reference": "digest", "rewritten": True, "touched": True}
E: Any = {"phase": "exporter", "reference": "digest", "build": "daemon"}
CONTRACT: list[tuple[Any, str, str]] = [
    # The facts, the outcome, and what is done: run, without the lookup, step, write.
    ({**R, "about": True}, "passed-through", "exec"),
    ({**R, "api": "older"}, "passed-through", "exec"),
    ({**R, "api": "newer"}, "passed-through", "exec"),
    ({**R, "api": "unset"}, "passed-through", "exec"),
    ({**R, "group": "missing"}, "passed-through", "exec"),
    ({**R, "group": "broken"}, "passed-through", "exec"),
    ({**R, "extensions": False}, "passed-through", "exec"),
    ({**R, "analyzed": "missing"}, "passed-through", "exec"),
    ({**R, "analyzed": "broken"}, "passed-through", "exec"),
    ({**R, "run_image": False}, "passed-through", "exec"),
    ({**R, "target": True}, "passed-through", "exec"),
    ({**R, "extend": True}, "passed-through", "exec"),
    ({**R, "image": False}, "no-lookup", "exec without"),
    ({**R, "image": False, "build": "registry"}, "no-lookup", "exec without"),
    ({**R, "build": "registry"}, "not-a-daemon-build", "exec"),
    ({**R, "build": "registry", "reference": "digest"}, "not-a-daemon-build", "exec"),
    ({**R, "build": "registry", "reference": "empty"}, "filled", "exec write-name"),
    ({**D, "engine": "absent"}, "kept-name", "exec without"),
    ({**D, "engine": "denied"}, "kept-name", "exec without"),
    ({**D, "engine": "silent"}, "kept-name", "exec without"),
    ({**D, "engine": "silent", "reference": "empty"}, "filled", "exec without write-name"),
    ({**R, "engine": "denied"}, "kept-name", "exec without"),
    ({**R, "engine": "denied", "reference": "empty"}, "filled", "exec without write-name"),
    ({**D}, "prevented", "parent without ask-name"),
    ({**D, "policy": "never"}, "prevented", "nothing ask-name"),
    ({**D, "policy": "always"}, "prevented", "nothing ask-name"),
    ({**D, "policy": "always", "engine": "has"}, "prevented", "nothing pull"),
    ({**D, "policy": "always", "engine": "lacks"}, "prevented", "nothing pull"),
    ({**D, "policy": "always", "engine": "has", "pull_tried": True}, "prevented", "parent without"),
    ({**D, "policy": "always", "engine": "lacks", "pull_tried": True}, "not-in-daemon", "exec"),
    ({**D, "policy": "never", "engine": "has"}, "prevented", "parent without"),
    ({**D, "policy": "never", "engine": "lacks"}, "not-in-daemon", "refuse"),
    ({**D, **WELL, "engine": "has"}, "prevented", "nothing write-id"),
    ({**D, **WELL, "engine": "has", "reference": "empty"}, "prevented", "nothing write-id"),
    ({**D, **WELL, "engine": "lacks"}, "not-in-daemon", "nothing pull"),
    ({**D, **WELL, "engine": "lacks", "pull_tried": True}, "not-in-daemon", "exec"),
    ({**D, **WELL, "engine": "silent"}, "kept-name", "nothing"),
    ({**D, **WELL, "engine": "silent", "reference": "empty"}, "filled", "nothing write-name"),
    ({**D, "status": "failed", "engine": "has"}, "unchanged", "nothing"),
    ({**D, "status": "killed", "engine": "lacks"}, "unchanged", "nothing"),
    ({**R}, "daemon-unknown", "parent ask-name"),
    ({**R, "engine": "absent"}, "daemon-unknown", "parent"),
    ({**R, "engine": "silent"}, "daemon-unknown", "parent"),
    ({**R, "status": "failed", "engine": "has"}, "retried", "parent without"),
    ({**R, "status": "failed", "engine": "has", "touched": True}, "unchanged", "nothing"),
    ({**R, "status": "failed", "engine": "has", "retried": True}, "unchanged", "nothing"),
    ({**R, "status": "killed", "engine": "has"}, "unchanged", "nothing"),
    ({**R, **WELL, "engine": "has", "retried": True}, "retried", "nothing write-id"),
    ({**R, **WELL, "engine": "has", "reference": "empty"}, "filled", "nothing write-id"),
    ({**R, **WELL, "engine": "has"}, "unchanged", "nothing"),
    ({**R, **REWRITTEN, "engine": "has"}, "unchanged", "nothing ask-reference"),
    ({**R, **REWRITTEN, "engine": "has", "resolves": "same"}, "resolves", "nothing"),
    ({**R, **REWRITTEN, "engine": "has", "resolves": "other"}, "reverted", "nothing write-id"),
    ({**R, **REWRITTEN, "engine": "has", "resolves": "nowhere"}, "reverted", "nothing write-id"),
    ({**R, **REWRITTEN, "engine": "has", "resolves": "silent"}, "unrepaired", "nothing"),
    ({**R, **WELL, "engine": "lacks", "reference": "empty"}, "daemon-unknown", "nothing warn"),
    ({**R, **WELL, "engine": "silent", "reference": "empty"}, "filled", "nothing write-name"),
    ({**R, **WELL, "engine": "absent", "reference": "empty"}, "filled", "nothing write-name"),
    ({**R, **WELL, "engine": "lacks"}, "daemon-unknown", "nothing debug"),
    ({**R, **WELL, "engine": "absent"}, "daemon-unknown", "nothing debug"),
    ({**R, **REWRITTEN, "engine": "absent"}, "daemon-unknown", "nothing warn"),
    ({**R, "status": "failed", "engine": "lacks", "reference": "empty"}, "daemon-unknown", "nothing debug"),
    ({**R, "status": "failed", "engine": "absent", "reference": "empty"}, "daemon-unknown", "nothing debug"),
    ({**R, **WELL, "analyzed": "broken"}, "unrepaired", "nothing"),
    ({**R, "status": "failed", "analyzed": "missing"}, "unrepaired", "nothing"),
    ({**E, "about": True}, "passed-through", "exec"),
    ({**E, "api": "newer"}, "passed-through", "exec"),
    ({**E, "analyzed": "missing"}, "passed-through", "exec"),
    ({**E, "analyzed": "broken"}, "passed-through", "exec"),
    ({**E, "run_image": False}, "passed-through", "exec"),
    ({**E, "image": False}, "passed-through", "exec"),
    ({**E, "image": False, "reference": "id", "build": "registry"}, "passed-through", "exec"),
    ({**E, "reference": "name"}, "passed-through", "exec"),
    ({**E, "reference": "id"}, "passed-through", "exec"),
    ({**E, "reference": "digest", "build": "registry"}, "passed-through", "exec"),
    ({**E, "reference": "id", "build": "registry"}, "name-restored", "exec write-name"),
    ({**E, "reference": "empty", "build": "registry"}, "filled", "exec write-name"),
    ({**E}, "unchanged", "nothing ask-name"),
    ({**E, "reference": "empty"}, "unchanged", "nothing ask-name"),
    ({**E, "reference": "empty", "engine": "has"}, "filled", "exec write-id"),
    ({**E, "reference": "empty", "engine": "lacks"}, "filled", "exec write-name warn"),
    ({**E, "reference": "empty", "engine": "absent"}, "filled", "exec write-name warn"),
    ({**E, "engine": "has"}, "unchanged", "nothing ask-reference"),
    ({**E, "engine": "lacks"}, "unchanged", "nothing ask-reference"),
    ({**E, "engine": "has", "resolves": "same"}, "resolves", "exec"),
    ({**E, "engine": "has", "resolves": "other"}, "reverted", "exec write-id"),
    ({**E, "engine": "has", "resolves": "nowhere"}, "reverted", "exec write-id"),
    ({**E, "engine": "has", "resolves": "silent"}, "unrepaired", "exec warn"),
    ({**E, "engine": "lacks", "resolves": "other"}, "resolves", "exec"),
    ({**E, "engine": "lacks", "resolves": "nowhere"}, "not-in-daemon", "exec warn"),
    ({**E, "engine": "lacks", "resolves": "silent"}, "unrepaired", "exec warn"),
    ({**E, "engine": "absent"}, "unrepaired", "exec warn"),
    ({**E, "engine": "silent"}, "unrepaired", "exec warn"),
    ({"phase": "analyzer"}, "noted", "exec"),
    ({"phase": "analyzer", "noted": False}, "passed-through", "exec"),
    ({"phase": "analyzer", "about": True}, "passed-through", "exec"),
    ({"phase": "analyzer", "api": "newer"}, "passed-through", "exec"),
    ({"phase": "other"}, "passed-through", "exec"),
]


@pytest.mark.parametrize(("facts", "outcome", "done"), CONTRACT, ids=[f"{n}" for n in range(len(CONTRACT))])
def test_the_contract(facts: Any, outcome: str, done: str) -> None:
    """What the contract says of each of its rows, word by word."""
    verdict = decide(Facts(**facts)).verdict
    does: set[str] = {verdict.run, verdict.step if verdict.step != "nothing" else verdict.run}
    does |= set() if verdict.lookup else {"without"}
    does |= set() if verdict.write == "nothing" else {f"write-{verdict.write}"}
    assert verdict.outcome == outcome
    assert does | {verdict.level} >= set(done.split())
    assert does <= set(done.split())


def test_the_first_row_that_holds_counts() -> None:
    assert decide(Facts(phase="restorer", about=True, api="newer")).when == "the version or help is asked for"
    assert decide(Facts(phase="restorer", api="newer", group="missing")).when.startswith("the Platform API")


@pytest.mark.parametrize(
    ("clues", "build", "by"),
    [
        (Clues(), "unsaid", ""),
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
def test_the_first_witness_that_speaks_counts(clues: Clues, build: str, by: str) -> None:
    found = weigh(clues)
    assert (found.build, found.by) == (build, by)


def test_every_witness_is_heard_of() -> None:
    assert [witness.number for witness in EVIDENCE] == ["1", "2", "3", "4", "4", "5", "6"]


@pytest.mark.parametrize(
    ("build", "engine", "sure"),
    [
        ("daemon", "absent", "known"),
        ("registry", "has", "known"),
        ("unsaid", "has", "likely"),
        ("unsaid", "denied", "likely"),
        ("unsaid", "lacks", "unknown"),
        ("unsaid", "silent", "unknown"),
        ("unsaid", "absent", "unknown"),
        ("unsaid", "unasked", "unknown"),
    ],
)
def test_how_sure_it_is(build: str, engine: str, sure: str) -> None:
    facts = Facts(phase="restorer").but(build=build, engine=engine)
    assert certainty(facts) == sure
