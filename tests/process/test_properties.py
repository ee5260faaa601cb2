"""Properties of the edit and of the arguments, for whatever a person or the lifecycle could write.

`FUZZ=100 pytest tests/process/test_properties.py tests/unit/test_files.py` is a long run.
"""

from __future__ import annotations

import os
import pathlib
import re
import subprocess
import sys
import tomllib
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from shim.errors import EditRefused
from shim.layers import group
from shim.phase.handover import with_group
from shim.phase.invocation import read
from tests.support.build import SHIM, Build
from tests.support.fuzz import SCALE, edited_as
from tests.support.layers import ID, Layers
from tests.support.processes import program

LOOKALIKES = [
    '[run-image]\nreference = "x"',
    "[[group-extensions]]",
    'reference = "',
    "# reference",
    "\\",
    "'''",
    '""',
    "é\u2028𝄞",
]
TEXTS = st.one_of(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), st.sampled_from(LOOKALIKES))


def escaped(text: str, quote: str, keep: str = "") -> str:
    """Return a text as it stands in a basic string."""
    out = []
    for character in text:
        if character in keep:
            out.append(character)
        elif character in '\\"' or ord(character) < 32 or ord(character) == 127:
            out.append(f"\\u{ord(character):04x}")
        else:
            out.append(character)
    return f"{quote}{''.join(out)}{quote}"


def is_literal(text: str, *forbidden: str) -> bool:
    return not any(part in text for part in forbidden) and all(c == "\t" or ord(c) > 31 for c in text if c != "\x7f")


@st.composite
def strings(draw: st.DrawFn, texts: st.SearchStrategy[str] = TEXTS) -> tuple[str, str]:
    """A string, and one of the ways in which TOML can have it."""
    text = draw(texts)
    ways = [escaped(text, '"'), escaped(text, '"""')]
    if "\r" not in text:
        ways.append(escaped("\n" + text, '"""', keep="\n"))
    if is_literal(text, "'") and "\x7f" not in text:
        ways += [f"'{text}'", f"'''\n{text}'''"]
    return text, draw(st.sampled_from(ways))


@st.composite
def values(draw: st.DrawFn) -> str:
    text = draw(strings())[1]
    return draw(
        st.sampled_from(
            [
                *(text, "true", "1", "-1.5e3", "1979-05-27T07:32:00Z", "inf", "[]", f"[\n  {text}, # c\n]", "{}"),
                *(f"{{ reference = {text} }}", f'[{{ a = {text} }}, {{ "b c" = [1] }}]'),
            ]
        )
    )


BARE = st.sampled_from(["a", "b", "image2", "references", "reference-2", "extend2", "run-image2", "1", "_"])
QUOTED = st.sampled_from(['"q k"', "'l'", '"reference.x"', '"[run-image]"', '"é"', '""'])


@st.composite
def bodies(draw: st.DrawFn, first: tuple[str, ...] = ()) -> list[str]:
    """Lines of a table: keys that are needed, others, comments and blank lines, in any order."""
    keys = draw(st.lists(st.one_of(BARE, QUOTED), max_size=4, unique_by=lambda key: key.strip("\"'")))
    lines = [
        *first,
        *(f"{key} = {draw(values())}" for key in keys),
        *draw(st.lists(st.sampled_from(["", "# c", "#"]), max_size=2)),
    ]
    lines = draw(st.permutations(lines))
    indent = draw(st.sampled_from(["", "  ", "\t"]))
    return [f"{indent}{line}" for line in lines]


@st.composite
def documents(draw: st.DrawFn) -> tuple[str, str, str | None]:
    """A valid analyzed.toml, in which style its run image stands, and its reference."""
    reference, literal = draw(strings(st.one_of(TEXTS, st.just("r.example/run:1"))))
    missing = draw(st.integers(0, 5)) == 0
    needed = () if missing else (f"reference = {literal}",)
    style = draw(st.sampled_from(["usual", "commented", "quoted", "spaced", "inline", "dotted", "target first"]))
    target = draw(st.sampled_from([(), ("[run-image.target]", 'os = "linux"')]))
    head: list[str] = []
    if style == "inline":
        head = [f'run-image = {{ image = "r:1"{"" if missing else f", reference = {single_line(literal)}"} }}']
        tables: list[list[str]] = []
    elif style == "dotted":
        head = ['run-image.image = "r:1"', *(f"run-image.{line}" for line in needed)]
        tables = []
    else:
        header = {
            "usual": "[run-image]",
            "commented": "[run-image] # c",
            "quoted": '["run-image"]',
            "spaced": "  [ run-image ]",
        }
        mine = [header.get(style, "[run-image]"), *draw(bodies((*needed, 'image = "r:1"')))]
        tables = [[*target, *mine]] if style == "target first" else [[*mine, *target]]
    tables.append(["[image]", *draw(bodies(('reference = "y"',)))])
    for n in range(draw(st.integers(0, 3))):
        tables.append(
            ["[[metadata.buildpacks]]", f'key = "{n}"', *draw(bodies()), "[metadata.buildpacks.layers.l]", 'sha = "x"']
        )
    if draw(st.booleans()):
        tables.append(["[other.deep]", *draw(bodies()), "[other]", *draw(bodies())])
    lines = [*head, *(line for table in draw(st.permutations(tables)) for line in table)]
    end = draw(st.sampled_from(["\n", "\n", "\r\n"]))
    text = end.join("\n".join(lines).split("\n")) + draw(st.sampled_from(["", end]))
    return draw(st.sampled_from(["", "", "\ufeff"])) + text, style, None if missing else reference


def single_line(literal: str) -> str:
    """An inline table's values can't go over a line's end, but in a string."""
    return literal


def parsed(text: str) -> dict[str, Any]:
    return tomllib.loads(text.removeprefix("\ufeff"))


@settings(max_examples=int(300 * SCALE), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents())
def test_an_edit_changes_the_one_value_of_any_document(document: tuple[str, str, str | None]) -> None:
    text, style, _ = document
    data = text.encode()
    whole = parsed(text)
    try:
        edited = edited_as(data, ID).decode()
    except EditRefused:
        assert style in ("inline", "dotted", "target first", "spaced") or whole["run-image"].get("reference") is None, (
            text
        )
        return
    old = whole["run-image"].get("reference")
    assert parsed(edited) == {**whole, "run-image": {**whole["run-image"], "reference": ID}}
    if old == ID:
        assert edited == text
    elif old is not None:
        at = edited.index(f'"{ID}"')
        assert text.startswith(edited[:at])
        assert text.endswith(edited[at + len(ID) + 2 :])


@settings(max_examples=int(150 * SCALE), deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(documents(), st.lists(bodies(), max_size=3), st.booleans())
def test_a_group_without_its_extensions_is_otherwise_the_same(
    document: tuple[str, str, str | None], extensions: list[list[str]], before: bool
) -> None:
    text, style, _ = document
    more = "".join("[[group-extensions]]\n" + "".join(f"{line}\n" for line in body) for body in extensions)
    bom, text = ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)
    text = bom + (more + text if before and style not in ("inline", "dotted") else f"{text}\n{more}")
    whole = parsed(text)
    assert group.has_extensions("f", text.encode()) == bool(extensions)
    without = group.without_extensions("f", text.encode()).decode()
    whole.pop("group-extensions", None)
    assert parsed(without) == whole


@pytest.mark.parametrize(("by", "megabytes"), [("the lifecycle", 9), ("a person", 1)])
def test_a_huge_document(by: str, megabytes: int) -> None:
    """With the run image at the end; and as much of a group.toml, the extensions in the middle."""
    literal = '"%s"' if by == "the lifecycle" else "'%s'  # as it was\r"
    key, sha, name = (literal % text for text in ("bp/%d", f"sha256:{ID}", "r:1"))
    block = f"[[metadata.buildpacks]]\n  key = {key}\n  [metadata.buildpacks.layers.l]\n    sha = {sha}\n"
    text = (
        "".join(block % n for n in range(megabytes * 7_000)) + f"[run-image]\n  reference = {name}\n  image = {name}\n"
    )
    assert len(text) > megabytes * 1_000_000
    edited = edited_as(text.encode(), ID).decode()
    assert edited == text.replace(f"reference = {name[:5]}", f'reference = "{ID}"')

    entry = f"[[group]]\n  id = {key}\n  optional = true\n"
    entries = "".join(entry % n for n in range(megabytes * 22_000))
    assert len(entries) > megabytes * 1_000_000
    extension = (
        "[[group-extensions]]\n  id = 'ext/a'\n" if by == "a person" else '[[group-extensions]]\n  id = "ext/a"\n'
    )
    half = entries.index("[[group]]", len(entries) // 2)
    without = group.without_extensions("f", f"{entries[:half]}{extension}{entries[half:]}".encode())
    assert without.decode() == entries


# Any argv reaches the phase unchanged.

WORDS = st.one_of(
    st.binary(max_size=12).filter(lambda word: b"\0" not in word),
    st.text(max_size=8).map(lambda text: os.fsencode(text.encode(errors="replace")).replace(b"\0", b"")),
    st.sampled_from(
        [
            *(b"-daemon", b"--daemon=true", b"-group", b"-group=x", b"-layers", b"-analyzed", b"-uid", b"-gid", b"0"),
            *(b"-log-level", b"debug", b"-version", b"-h", b"--help", b"--", b"-", b"-x=", b"---", b"-no-color", b""),
            *(
                b"--strict",
                b"--report",
                b"--timeout=1",
                b"run",
                b"-cache-dir",
                b"/cache",
                b"-build-image",
                b"*",
                b"$HOME",
            ),
        ]
    ),
)


@pytest.fixture
def told(tmp_path: pathlib.Path) -> pathlib.Path:
    """A lifecycle directory whose phases write their arguments to TOLD, and the shim in the restorer's place."""
    program(tmp_path / "restorer.real", '#!/bin/sh\nprintf "%s\\0" "$@" > "$TOLD"\n')
    (tmp_path / "plain").mkdir()
    (tmp_path / "plain" / "restorer").symlink_to(tmp_path / "restorer.real")
    code = "import sys\nfrom shim.__main__ import main\nsys.exit(main())\n"
    program(tmp_path / "restorer", f"#!{sys.executable} -I\nimport sys\nsys.path.insert(0, {os.getcwd()!r})\n{code}")
    return tmp_path


@settings(
    max_examples=int(20 * SCALE),
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(st.lists(WORDS, max_size=6), st.sampled_from(["becomes", "parent", "no lookup"]))
def test_any_arguments_reach_the_phase_unchanged(
    build: Build, layers: Layers, told: pathlib.Path, arguments: list[bytes], how: str
) -> None:
    layers.write("r:1" if how == "parent" else ID, "r:1" if how == "parent" else None)
    out = told / "out"
    env = {**build.env, "TOLD": str(out), "CNB_PLATFORM_API": "0.12" if how == "becomes" else "0.11"}
    for command in ([*SHIM, "run", "--", str(told / "plain" / "restorer")], [str(told / "restorer")]):
        out.unlink(missing_ok=True)
        ended = subprocess.run([*map(os.fsencode, command), *arguments], env=env, capture_output=True, check=False)
        assert ended.returncode == 0, ended.stderr
        got = out.read_bytes().split(b"\0")[:-1]
        if got != arguments and how == "no lookup":  # exactly one flag more, before the others
            path = re.fullmatch(rb"-group=(.+)", got[0])
            assert path is not None, got
            call = read([str(told / "restorer"), *map(os.fsdecode, arguments)], {})
            wanted = with_group(call, os.fsdecode(path[1]))
            got, arguments_then = got[1:], [os.fsencode(word) for word in wanted[2:]]
            assert got == arguments_then
            continue
        assert got == (arguments or [b""])  # printf repeats its format once at least
