"""Properties of the edit and of the arguments, for whatever a person or the lifecycle could write.

`FUZZ=100 pytest tests/process/test_properties.py` is a long run.
"""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim import call, group, nothing
from shim.errors import FileProblem, WriteRefused
from tests.support.build import SHIM, Build
from tests.support.fuzz import SCALE, edited_as, without_extensions
from tests.support.launchers import drop_in
from tests.support.layers import ID, Layers
from tests.support.processes import program

CHECKS = [HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
FUZZ = settings(max_examples=int(150 * SCALE), deadline=None, suppress_health_check=CHECKS)
LOOKALIKES = ['[run-image]\nreference = "x"', "[[group-extensions]]", 'reference = "', "# x", "\\", "'''", "é\u2028𝄞"]
TEXTS = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.sampled_from(LOOKALIKES))


def quoted(text: str, literal: bool) -> str:
    if literal and text.isprintable() and "'" not in text:
        return f"'{text}'"
    escaped = (f"\\u{ord(c):04x}" if c in '\\"' or ord(c) < 32 or ord(c) == 127 else c for c in text)
    return f'"{"".join(escaped)}"'


STRINGS = st.builds(quoted, TEXTS, st.booleans())
LINES = ['"""\n[run-image]\nreference = "x"\n"""', "'''\n[[group-extensions]]\nid = 1\n'''"]
LINES += ['[\n ["a"],\n]', '["["] # c']
OTHERS = ["1", "-0.5", "1979-05-27T07:32:00Z", "true", "{ reference = 'x' }", "[1, 2]", "{}", "0x1f", "inf", "''"]
HEADERS_IN_VALUES = re.compile("('''|\"\"\"|\\[)\r?\n[ \t]*\\[|[\x0b\x0c\x1c-\x1e\x85\u2028\u2029]")
VALUES = st.one_of(STRINGS, st.sampled_from([*LINES, *OTHERS]))
KEYS = ["a", "extend", '"q k"', "'l'", "references", "run-image2", '"reference.x"', '"[run-image]"', '"é"', '""', "1"]


@st.composite
def bodies(draw: st.DrawFn, *needed: str) -> list[str]:
    """Lines of a table: keys that are needed, others, comments and blank lines, in any order."""
    keys = draw(st.lists(st.sampled_from(KEYS), max_size=4, unique=True))
    more = draw(st.lists(st.sampled_from(["", "# c"]), max_size=2))
    lines = draw(st.permutations([*needed, *(f"{key} = {draw(VALUES)}" for key in keys), *more]))
    indent = draw(st.sampled_from(["", "  ", "\t"]))
    return [f"{indent}{line}" for line in lines]


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, bool]:
    """A valid analyzed.toml; and whether its run image's table has no line that looks like another's header."""
    reference, image = f"reference = {draw(STRINGS)}", 'image = "r:1"'
    style = draw(st.sampled_from(["usual", "usual", "usual", "no reference", "quoted", "inline", "dotted"]))
    body = draw(bodies(image, *([reference] if style != "no reference" else [])))
    heads = {"inline": f"run-image = {{ {image}, {reference} }}", "dotted": f"run-image.{image}\nrun-image.{reference}"}
    tables = [["[image]", *draw(bodies('reference = "y"'))]]
    if style not in heads:
        header = '["run-image"]' if style == "quoted" else draw(st.sampled_from(["[run-image]", "  [run-image] # c"]))
        tables.append([header, *body, *draw(st.sampled_from([[], ["[run-image.target]", 'os = "linux"']]))])
    for n in range(draw(st.integers(0, 3))):
        tables.append(["[[metadata.buildpacks]]", f'key = "{n}"', *draw(bodies()), "[metadata.buildpacks.layers.l]"])
    lines = [heads.get(style, ""), *(line for table in draw(st.permutations(tables)) for line in table)]
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = end.join("\n".join(lines).split("\n")) + draw(st.sampled_from(["", end]))
    return text, style == "usual" and not re.search(r"\n[ \t]*\[", "\n".join(body))


@FUZZ
@given(documents())
def test_an_edit_changes_the_one_value_of_any_document_or_nothing(document: tuple[str, bool]) -> None:
    text, usual = document
    whole: dict[str, Any] = tomllib.loads(text)
    assert nothing._may_have_image(text.encode())
    try:
        edited = edited_as(text.encode(), ID).decode()
    except WriteRefused:
        assert not usual, text
        return
    assert tomllib.loads(edited) == {**whole, "run-image": {**whole["run-image"], "reference": ID}}
    at = edited.index(f'"{ID}"')
    assert text.startswith(edited[:at]) and text.endswith(edited[at + len(ID) + 2 :])


@FUZZ
@given(documents(), st.lists(bodies('id = "x"'), max_size=3), st.sampled_from([True, False, None]))
def test_a_note_has_a_group_without_its_extensions_or_is_refused(
    document: tuple[str, bool], extensions: list[list[str]], daemon: bool | None
) -> None:
    more = ("\n".join(["[[group-extensions]]", *body, ""]) for body in extensions)
    text = f"{document[0]}\n{''.join(more)}"
    whole = tomllib.loads(text)
    assert group.has_extensions("f", text.encode()) == bool(extensions) == bool(whole.pop("group-extensions", None))
    try:
        note = without_extensions(text.encode(), daemon).decode() if extensions else ""
    except WriteRefused:
        assert HEADERS_IN_VALUES.search(text), text
        return
    assert not extensions or tomllib.loads(note) == {**whole, **({} if daemon is None else {"daemon": daemon})}


PIECES = st.sampled_from([*LOOKALIKES, "=", '"', "\n", "[run-image]\n", "image", "{", "}", ".", "group-extensions"])


@FUZZ
@given(st.one_of(st.binary(), st.lists(PIECES).map(lambda pieces: "".join(pieces).encode())))
def test_whatever_stands_in_a_file_it_is_edited_or_an_error_of_ours(data: bytes) -> None:
    with contextlib.suppress(FileProblem, WriteRefused):
        edited_as(data, ID)
    with contextlib.suppress(FileProblem, WriteRefused):
        if group.has_extensions("f", data):
            without_extensions(data)


FORMS = st.sampled_from(["-{}={}", "--{}={}", "-{} {}", "--{} {}"])
NAMES = st.sampled_from(["layers", "group", "analyzed", "uid", "log-level", "cache-dir", "build-image"])
VALUE = st.tuples(NAMES, st.text(max_size=5).filter(lambda text: not text.startswith("-")), FORMS)
SWITCHES = st.sampled_from(["daemon", "no-color", "skip-layers", "version", "h"])
BOOLEAN = st.tuples(SWITCHES, st.sampled_from(["true", "F"]), st.sampled_from(["-{}={}", "--{}={}", "-{}", "--{}"]))
REST = st.lists(st.sampled_from(["app", "-group", "--", "-daemon"]), max_size=2)


@FUZZ
@given(st.lists(st.one_of(VALUE, BOOLEAN), max_size=5), REST, st.sampled_from([["--"], ["app"], ["-"]]))
def test_flags_are_read_as_go_reads_them(flags: list[tuple[str, str, str]], rest: list[str], end: list[str]) -> None:
    words = [part.format(*parts[at:]) for *parts, form in flags for at, part in enumerate(form.split(" "))]
    wanted = {name: value if "{}" in form[3:] else "true" for name, value, form in flags}
    found = call.Call(["restorer", *words, *end, *rest], 0, "restorer", {})
    assert found.flags == wanted
    argv, environ = found.without_lookup("/n")
    without = call.Call(argv, 0, "restorer", environ)
    assert (without.group, without.flags) == ("/n", wanted | ({"group": "/n"} if "group" in wanted else {}))
    assert (len(argv), argv[1 + len(words) :]) == (len(found.argv), (*end, *rest))


KNOWN = b"-daemon --daemon=true -layers -analyzed -uid 0 -log-level debug -version=0 -- - -x= --- --strict run * $HOME"
ODD = st.sampled_from([*KNOWN.split(), b"", b"-group", b"-group=x", "é𝄞".encode()])
WORDS = st.one_of(st.binary(max_size=12).filter(lambda word: b"\0" not in word), ODD)


@pytest.mark.parametrize("how", ["as called", "child", "without the lookup", "drop-in"])
@settings(FUZZ, max_examples=int(12 * SCALE))
@given(words=st.lists(WORDS, max_size=6))
def test_any_arguments_reach_the_phase_unchanged(build: Build, layers: Layers, how: str, words: list[bytes]) -> None:
    """But for the value of `-group` where the lookup is skipped."""
    build.unmeasured()
    layers.write("r:1", None if how == "without the lookup" else "r:1")
    own, out = build.directory / "restorer", build.directory / "out"
    for path in (own, build.directory / "restorer.real"):
        program(path, '#!/bin/sh\nprintf "%s\\0" "$CNB_GROUP_PATH" "$@" > "$OUT"\n')
    env = {**build.env, "OUT": str(out), "CNB_PLATFORM_API": "0.12" if how == "as called" else "0.11"}
    command = [str(drop_in(own))] if how == "drop-in" else [*SHIM, "run", "--", str(own)]
    ended = subprocess.run([*map(os.fsencode, command), *words], env=env, capture_output=True, check=False)
    assert ended.returncode == 0 and not ended.stderr, ended.stdout + ended.stderr
    note, *got = out.read_bytes().split(b"\0")[:-1]
    if note:
        called = call.Call([str(own), *map(os.fsdecode, words)], 0, "restorer", {})
        words = [os.fsencode(word) for word in called.without_lookup(os.fsdecode(note))[0][1:]]
    assert (got, bool(note) and how != "without the lookup") == (words, False)
