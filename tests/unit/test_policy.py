"""The decision tables, row by row, and what must never happen in any combination."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator
from typing import Any

import pytest

from shim import policy
from shim.policy import Found, Row
from tests.support.layers import ID

HAS, LACKS, SILENT = Found("has", ID), Found("lacks"), Found("silent", detail="permission denied")
OTHER = Found("lacks", own="linux/amd64", other="linux/arm64")
NAME, DIGEST, EMPTY = "r:1", f"r@sha256:{'5' * 64}", ""
ROWS = {name: row for name, row in vars(policy).items() if isinstance(row, Row)}


class Daemon:
    """Answers by reference, and keeps what it was asked for."""

    def __init__(self, **answers: Found) -> None:
        self.answers = {NAME: answers.get("name", LACKS), DIGEST: answers.get("digest", LACKS), ID: HAS}
        self.asked: list[str] = []

    def __call__(self, reference: str) -> Found:
        self.asked.append(reference)
        return self.answers[reference]


@pytest.mark.parametrize(
    ("switched", "daemon", "answer", "row", "does"),
    [
        (False, None, HAS, "no-switch", "no-lookup without"),
        (True, False, HAS, "registry-build", "not-a-daemon-build debug"),
        (True, True, HAS, "daemon-build", "prevented without id"),
        (True, True, SILENT, "daemon-out-of-reach", "kept-name without"),
        (True, True, LACKS, "not-in-daemon", "not-in-daemon warn"),
        (True, None, HAS, "unknown", "unchanged debug child"),
    ],
)
def test_the_restorer(switched: bool, daemon: bool | None, answer: Found, row: str, does: str) -> None:
    look = Daemon(name=answer)
    decided, found = policy.restorer(switched, daemon, NAME, look)
    asks = switched and bool(daemon)
    assert (decided.name, does_of(decided), look.asked) == (row, does, [NAME] * asks)
    assert found == (answer if asks else policy.UNASKED)


def does_of(row: Row) -> str:
    """Return what a row does, in words; what most rows do is left out."""
    level = "" if row.level == "info" else row.level
    words = (row.outcome, level, "without" * (not row.lookup), row.write, "child" * row.child, "fails" * row.fails)
    return " ".join(filter(None, words))


@pytest.mark.parametrize(
    ("failed", "after", "digest", "name", "does", "asked"),
    [
        (True, NAME, HAS, HAS, "retried warn without", [NAME]),
        (True, NAME, HAS, LACKS, "unchanged child", [NAME]),
        (False, NAME, HAS, HAS, "unchanged debug child", []),
        (False, "r:2", HAS, HAS, "unchanged debug child", []),
        (False, DIGEST, HAS, HAS, "resolves debug", [DIGEST]),
        (False, DIGEST, LACKS, HAS, "reverted name", [DIGEST, NAME]),
        (False, DIGEST, LACKS, LACKS, "daemon-unknown", [DIGEST, NAME]),
        (False, DIGEST, SILENT, HAS, "daemon-unknown", [DIGEST]),
    ],
)
def test_after_a_restorer_of_an_unknown_build(
    failed: bool, after: str, digest: Found, name: Found, does: str, asked: list[str]
) -> None:
    look = Daemon(digest=digest, name=name)
    row, _ = policy.after_restorer(failed, NAME, after, NAME, look)
    assert (row.name, does_of(row), look.asked) == ("unknown", does, asked)


@pytest.mark.parametrize(
    ("reference", "digest", "name", "does", "asked"),
    [
        (DIGEST, HAS, LACKS, "resolves debug", [DIGEST]),
        (NAME, LACKS, HAS, "resolves debug", [NAME]),
        (DIGEST, LACKS, HAS, "reverted id", [DIGEST, NAME]),
        (DIGEST, LACKS, LACKS, "not-in-daemon warn fails", [DIGEST, NAME]),
        (DIGEST, LACKS, OTHER, "not-in-daemon warn fails", [DIGEST, NAME]),
        (NAME, LACKS, OTHER, "not-in-daemon warn fails", [NAME]),
        (DIGEST, SILENT, HAS, "daemon-unknown warn fails", [DIGEST]),
        (DIGEST, LACKS, SILENT, "daemon-unknown warn fails", [DIGEST, NAME]),
        (EMPTY, LACKS, HAS, "filled id", [NAME]),
        (EMPTY, LACKS, LACKS, "not-in-daemon warn name fails", [NAME]),
    ],
)
def test_the_exporter(reference: str, digest: Found, name: Found, does: str, asked: list[str]) -> None:
    look = Daemon(digest=digest, name=name)
    row, _ = policy.exporter(reference, NAME, look)
    assert (row.name, does_of(policy.filled(row, reference, NAME)), look.asked) == ("exporter", does, asked)


def test_an_empty_reference_is_filled_with_the_name_in_every_row() -> None:
    rows = {"NO_SWITCH": "no-lookup without name", "REGISTRY_BUILD": "filled name", "UNKNOWN": "filled name child"}
    rows |= {"DAEMON_BUILD": "prevented without id", "DAEMON_OUT_OF_REACH": "kept-name without name"}
    for row, does in {**rows, "NOT_IN_DAEMON": "not-in-daemon warn name"}.items():
        assert does_of(policy.filled(ROWS[row], EMPTY, NAME)) == does
        for reference, image in ((NAME, NAME), (DIGEST, NAME), (EMPTY, EMPTY)):
            assert policy.filled(ROWS[row], reference, image) is ROWS[row]


@pytest.mark.parametrize(
    ("option", "note", "variables", "known"),
    [
        (None, None, {}, (None, "")),
        (True, False, {"CNB_USE_DAEMON": "false"}, (True, "option")),
        (False, True, {"CNB_USE_DAEMON": "true"}, (False, "option")),
        (None, True, {"CNB_USE_DAEMON": "false"}, (True, "note")),
        (None, False, {"CNB_USE_DAEMON": "true"}, (False, "note")),
        (None, None, {"CNB_USE_DAEMON": "T", "CNB_USE_LAYOUT": "true"}, (True, "CNB_USE_DAEMON")),
        (None, None, {"CNB_USE_DAEMON": "0"}, (False, "CNB_USE_DAEMON")),
        (None, None, {"CNB_USE_DAEMON": "banana", "CNB_USE_LAYOUT": "1"}, (False, "CNB_USE_LAYOUT")),
        (None, None, {"CNB_USE_DAEMON": "", "CNB_USE_LAYOUT": "false"}, (None, "")),
    ],
)
def test_the_first_that_speaks_says_which_build_it_is(
    option: bool | None, note: bool | None, variables: dict[str, str], known: tuple[bool | None, str]
) -> None:
    assert policy.build_type(option, note, variables) == known


Case = tuple[str, bool | None, str, Row, Found, Daemon]
ANSWERS = (HAS, LACKS, OTHER, SILENT)


def every_case() -> Iterator[Case]:
    """Yield all combinations: the table, the build, the reference it is about, what is decided, and the daemon."""
    for name, digest, reference in itertools.product(ANSWERS, ANSWERS, (NAME, DIGEST, ID, EMPTY)):
        for switched, daemon in itertools.product((True, False), (True, False, None)):
            look = Daemon(name=name, digest=digest)
            row, found = policy.restorer(switched, daemon, NAME, look)
            yield "restorer", daemon, reference, policy.filled(row, reference, NAME * switched), found, look
        for failed, before in itertools.product((True, False), (NAME, DIGEST, EMPTY)):
            look = Daemon(name=name, digest=digest)
            row, found = policy.after_restorer(failed, before, reference, NAME, look)
            yield "after", None, reference, row, found, look
        look = Daemon(name=name, digest=digest)
        row, found = policy.exporter(reference, NAME, look)
        yield "exporter", True, reference, policy.filled(row, reference, NAME), found, look


CASES = list(every_case())


def test_what_must_never_happen() -> None:
    assert len(CASES) == 4 * 4 * 4 * (6 + 6 + 1)
    for table, daemon, reference, row, found, look in CASES:
        case = (table, daemon, reference, row, look.answers)
        if row.write == "id":
            assert daemon is True, f"an ID in a build that isn't known to be for a daemon: {case}"
            assert found == HAS, f"an ID that the daemon doesn't have: {case}"
        if row.write == "name" and reference:
            assert table == "after" and look.answers[NAME] == HAS, f"a name that nobody has: {case}"
        if table == "exporter":
            assert row.write or reference, f"an empty reference goes to the exporter: {case}"
            assert look.answers.get(reference) != HAS or not row.write, f"what resolves is left: {case}"
        if table == "restorer" and not daemon:
            assert look.asked == [], f"a daemon is asked where none is known to be used: {case}"
        assert len(look.asked) <= 2 and EMPTY not in look.asked, f"asked too often, or for nothing: {case}"
        if row.outcome == "retried":
            assert found == HAS and not row.lookup, f"a second run that fails too: {case}"


def test_every_row_is_reached() -> None:
    reached = {row.says for *_, row, _, _ in CASES}
    said_without_a_decision = {"NOTHING_TO_DO", "UNREADABLE", "NOT_WRITTEN", "NOTED", "NOT_NOTED"}
    assert {name for name, row in ROWS.items() if row.says not in reached} <= said_without_a_decision


FACTS = {"daemon": "unix:///d", "detail": "exit status 1", "left": DIGEST, "build": "daemon", "known_by": "note"}
FACTS |= {"run_image": NAME, "reference_before": DIGEST, "reference_after": DIGEST}


def test_each_sentence_names_what_it_is_about_and_has_no_gap() -> None:
    """An ID where an ID is meant, and a digest reference where that is."""
    rows: list[Any] = [(row, found) for *_, row, found, _ in CASES] + [(row, policy.UNASKED) for row in ROWS.values()]
    for row, found in rows:
        said = policy.sentence(row, found, **FACTS)
        assert not re.search(r"[{}]|  |None|\(\)| $", said), said
        assert row.level == "debug" or row.outcome == "no-lookup" or re.search("r:1|r@sha256|exit status", said), said
        if row.write == "id":
            assert f"{ID[:12]}," in said or found != HAS, said
        if row.fails and row is not policy.NOT_WRITTEN:
            assert ("only for" in said) is bool(found.other) or found is policy.UNASKED, said
            assert f"docker pull {'--platform linux/amd64 ' if found.own else ''}r:1" in said
    for row, found, words in (
        (policy.EXPORT_OTHER_PLATFORM, OTHER, "the daemon at unix:///d has r:1 only for linux/arm64"),
        (policy.NOT_IN_DAEMON, OTHER, "not have r:1 for linux/amd64, only for linux/arm64; run"),
        (policy.NOT_IN_DAEMON, OTHER._replace(other=""), "not have r:1 for linux/amd64; run"),
    ):
        assert words in policy.sentence(row, found, **FACTS)
    assert policy.NOT_WRITTEN.fails


ASKED = ["run", "r:1", "registry.example/run:1.0", "localhost:5000/a/b", "a__b/c--d", "a:Tag_1.0-x", ID, ID[:12]]
ASKED += ["a" * 511, f"sha256:{ID}", DIGEST, f"[fe80::1]:5000/r@sha256:{ID}"]
NO = ["", "..", "../x?all=1", "a/../b", "/a", "a/", "a//b", ".a", "-a", "a b", "a\n", "a?x=1", "a#b", "a%2e"]
NO += ["r:1/..", "é", "\uff11", "a\0", "a\\b", "http://a", "a;b", "UPPER:1", "$(a)", "x" * 512, "x" * 513]


def test_what_a_daemon_can_be_asked_for() -> None:
    assert [text for text in ASKED if not policy.is_reference(text)] == []
    assert [text for text in NO if policy.is_reference(text)] == []
