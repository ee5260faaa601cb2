"""analyzed.toml, group.toml and the note: one value changes, or nothing does."""

from __future__ import annotations

import fcntl
import os
import pathlib
import stat
import string
import subprocess
import sys
import time
import tomllib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from shim.errors import BrokenFile, EditRefused, MissingFile
from shim.layers import analyzed, files, group, note, replacing, toml
from tests.support.fuzz import SCALE, edited_as
from tests.support.layers import EXTENSION, GROUP, ID, analyzed_toml

NAME = "registry.example/run:1.0"


UNTOUCHED_BUT_FOR_THE_VALUE = [
    pytest.param(analyzed_toml("OLD", NAME), id="as the lifecycle writes it"),
    pytest.param('[run-image]\nreference = "OLD"', id="no final newline"),
    pytest.param('[run-image]\r\n\treference = "OLD" # why\r\nimage = "x"\r\n', id="CRLF, a tab and a comment"),
    pytest.param('\ufeff[run-image]\nreference = "OLD"\n', id="byte order mark"),
    pytest.param('[run-image]\n"reference"   =   "OLD"\n\n\n', id="quoted key, blanks, empty lines"),
    pytest.param('[ run-image ]\nreference = "OLD"\n', id="blanks in the header"),
    pytest.param('["run-image"]\nreference = "OLD"\n', id="quoted header"),
    pytest.param('run-image.reference = "OLD"\nrun-image.image = "x"\n', id="dotted keys"),
    pytest.param('run-image = { reference = "OLD", image = "x" }\n', id="inline table"),
    pytest.param(
        '[run-image] # [run-image]\nimage="x"#\nreference = "OLD"\nzz="OLD"\n[z]\nreference="OLD"\n', id="bait"
    ),
    pytest.param(
        'a = """\n[run-image]\nreference = "no"\n"""\n[run-image]\nreference = "OLD"\n', id="bait in a string"
    ),
    pytest.param(
        "a = '''\n[run-image]\nreference = \"no\"\n'''\n[run-image]\nreference = \"OLD\"\n", id="literal bait"
    ),
    pytest.param('[run-image]\nx = [\n  ["a"],\n]\nreference = "OLD"\n', id="an array that looks like a header"),
    pytest.param('[run-image.target]\nos = ""\n[run-image]\nreference = "OLD"\n', id="out of order"),
    pytest.param(
        '[run-image]\nreference = "OLD"\n[[metadata.buildpacks]]\nkey="é\\n"\n[[metadata.buildpacks]]\n', id="more"
    ),
    pytest.param('[run-image]\nx = "a\\"b"\nreference = "OLD"\nunknown = 1979-05-27T07:32:00Z\n', id="other values"),
]


@pytest.mark.parametrize("template", UNTOUCHED_BUT_FOR_THE_VALUE)
@pytest.mark.parametrize("old", ["", "registry.example/run@sha256:" + "5" * 64, "registry.example/run:1.0"])
def test_one_value_changes_and_every_other_byte_stays(template: str, old: str) -> None:
    head, tail = template.rsplit('"OLD"', 1) if "zz" not in template else template.split('"OLD"', 1)
    before = f'{head}"{old}"{tail}'
    assert edited_as(before.encode(), ID) == f'{head}"{ID}"{tail}'.encode()


@pytest.mark.parametrize("literal", ["'OLD'", '"""OLD"""', "'''OLD'''", '"\\u004FLD"'])
def test_every_kind_of_string_can_be_replaced(literal: str) -> None:
    text = f"[run-image]\nreference = {literal} # kept\n"
    assert edited_as(text.encode(), ID).decode() == f'[run-image]\nreference = "{ID}" # kept\n'


def test_a_missing_reference_is_added_and_nothing_is_lost() -> None:
    text = '[run-image]\n  image = "x"\n[z]\na = 1\n'
    edited = edited_as(text.encode(), ID).decode()
    assert tomllib.loads(edited)["run-image"] == {"image": "x", "reference": ID}
    assert [line for line in edited.split("\n") if "reference" not in line] == text.split("\n")


@pytest.mark.parametrize("text", ["[run-image]\nreference = 5\n", "run-image = 3\n", "[run-image]\nreference=[]\n"])
def test_what_is_no_string_is_refused(text: str) -> None:
    with pytest.raises((EditRefused, BrokenFile)):
        edited_as(text.encode(), ID)


@pytest.mark.parametrize("length", [4096, 4097])
def test_of_what_a_person_wrote_four_kilobytes_are_edited(length: int) -> None:
    """A parser that keeps blanks and comments takes a hundred times as long as one that doesn't."""
    text = f"[run-image]\nreference = 'old'\n#{'x' * length}"[:length].encode()
    if length > 4096:
        with pytest.raises(EditRefused):
            edited_as(text, ID)
    else:
        assert edited_as(text, ID) == text.replace(b"'old'", f'"{ID}"'.encode())


def test_the_same_value_changes_nothing() -> None:
    text = analyzed_toml(ID, NAME).encode()
    assert edited_as(text, ID) == text


OLD = '[run-image]\n  reference = "a"\n  image = "a"\n'


@pytest.mark.parametrize(
    ("old", "new", "value", "yes"),
    [
        (OLD, '[run-image]\n  reference = "new"\n  image = "a"\n', "a", True),
        (OLD.replace('"a"', "'a'", 1), '[run-image]\n  reference = "new"\n  image = "a"\n', "a", True),
        (OLD.replace('"a"', '"\\u0061"', 1), '[run-image]\n  reference = "new"\n  image = "a"\n', "a", True),
        ('x = "a"', 'x = "new"', "a", True),
        ('"a"', '"new"', "a", True),
        ('x = "new" # "a"\nreference = "a"', 'x = "new" # "a"\nreference = "new"', "a", True),
        ('x = "a"\ny = "new"', 'x = "new"\ny = "new"', "a", True),
        (OLD, '[run-image]\n  reference = "a"\n  image = "new"\n', "b", False),
        (OLD, '[run-image]\n  reference = "new"\n  image = "b"\n', "a", False),
        (OLD, '[run-image]\n reference = "new"\n  image = "a"\n', "a", False),
        (OLD, '[run-image]\n  reference = "new"\n  image = "a"', "a", False),
        (OLD, '\n[run-image]\n  reference = "new"\n  image = "a"\n', "a", False),
        (OLD, '[run-image]\n  reference = "other"\n  image = "a"\n', "a", False),
        (OLD, OLD, "a", False),
        ("aa", 'a"new"a', "", False),
        ("a", 'a"new"a', "a", False),
        ('x = "\\a"', 'x = "new"', "\\a", False),
        ('[run-image]\nimage = "a"\n', '[run-image]\nimage = "a"\nreference = "new"\n', None, True),
        ('[run-image]\nimage = "a"', '[run-image]\nimage = "a"\nreference = "new"\n', None, True),
        ('[run-image]\nimage = "a"\n', 'reference = "new"\n[run-image]\nimage = "a"\n', None, True),
        ('[run-image]\nimage = "a"\n', '[run-image]\nimage = "b"\nreference = "new"\n', None, False),
        ('[run-image]\nimage = "a"\n', '[run-image]\nreference = "new"\n', None, False),
        ('[run-image]\nimage = "a"\n\n', '[run-image]\nimage = "a"\nreference = "new"\n', None, False),
    ],
)
def test_only_the_one_value_may_differ(old: str, new: str, value: str | None, yes: bool) -> None:
    """Whatever an editor made of it."""
    assert analyzed.only_value_differs(old, new, value, "new") is yes


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("", [""]),
        ("[run-image]", ["[run-image]"]),
        ("[run-image]\na = 1\n", ["[run-image]\na = 1\n"]),
        ("[image]\n[run-image]\na = 1\n[x]\n", ["[run-image]\na = 1\n"]),
        ("[image]\n  [run-image] # c\na = 1\n\n  [[x]]\n[y]", ["  [run-image] # c\na = 1\n\n"]),
        ("[run-image]\r\na = 1\r\n[x]", ["[run-image]\r\na = 1\r\n"]),
        ("[run-image]\n[run-image]\na", ["[run-image]\n", "[run-image]\na"]),
        ("[run-image]\n[run-image.target]\n", ["[run-image]\n"]),
        ("a = 1\n", []),
        ("[run-image]\n" * 10 + "a = 1\n", ["[run-image]\n"] * 9 + ["[run-image]\na = 1\n"]),
        ("[run-image]\n" * 11 + "a = 1\n", ["[run-image]\n"] * 10),
        ("# [run-image]\n" * 11 + "[run-image]\n", ["[run-image]\n"]),
    ],
)
def test_where_the_table_may_stand(text: str, found: list[str]) -> None:
    """The table alone comes first, as a parse of the whole file takes a hundred times as long; then the whole text."""
    places = [text[start:end] for start, end in analyzed.places(text)]
    assert places == [*(piece for piece in found if text), text]


KEYS = st.sampled_from(["reference", "image", "a", "extend", '"q k"', "d.o.t", "'l'", "run-image", "target"])
STRINGS = st.text(string.printable + "é\u2028", max_size=12).map(
    lambda text: '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n").replace("\r", "\\r") + '"'
)
VALUES = st.one_of(
    STRINGS,
    st.sampled_from(
        ['"""\n[run-image]\nreference = "x"\n"""', "'''a'''", "[1, 2]", '[\n ["a"],\n]', "{ reference = 'x' }", "true"]
    ),
    st.sampled_from(["''", "1", "-0.5", "1979-05-27", "inf", '[ "]" ]', '["["] # c']),
)
LINES = st.one_of(
    st.builds(lambda key, value, pad: f"{pad}{key} = {value}", KEYS, VALUES, st.sampled_from(["", "  ", "\t"])),
    st.sampled_from(["", "# c", "[run-image]", " [run-image] # c", "[image]", "[[metadata.b]]", "[run-image.target]"]),
    st.sampled_from(
        ["[metadata]", '["run-image"]', "[a.b]", "[[group-extensions]]", "[[group]]", "[group-extensions.x]"]
    ),
)
DOCUMENTS = st.builds(
    lambda lines, end, bom: bom + end.join(lines),
    st.lists(LINES, max_size=12),
    st.sampled_from(["\n", "\r\n"]),
    st.sampled_from(["", "\ufeff"]),
)


def parsed(text: str) -> dict[str, object] | None:
    try:
        return tomllib.loads(text.removeprefix("\ufeff"))
    except tomllib.TOMLDecodeError:
        return None


@settings(max_examples=int(400 * SCALE), deadline=None)
@given(DOCUMENTS)
def test_an_edit_changes_the_one_value_or_refuses(text: str) -> None:
    data = text.encode()
    try:
        edited = edited_as(data, ID)
    except (EditRefused, BrokenFile):
        return
    whole = parsed(text)
    assert whole is not None
    table = whole.get("run-image", {})
    assert isinstance(table, dict)
    assert parsed(edited.decode()) == {**whole, "run-image": {**table, "reference": ID}}
    if "reference" in table:
        at = edited.find(f'"{ID}"'.encode())
        assert data.startswith(edited[:at])
        assert data.endswith(edited[at + len(ID) + 2 :])


@settings(max_examples=int(400 * SCALE), deadline=None)
@given(DOCUMENTS)
def test_a_group_without_its_extensions_is_otherwise_the_same(text: str) -> None:
    data = text.encode()
    try:
        without = group.without_extensions("f", data)
    except BrokenFile:
        return
    whole = parsed(text)
    if whole is None:
        return
    whole.pop("group-extensions", None)
    assert parsed(without.decode()) == whole


@pytest.mark.parametrize(
    ("text", "has"),
    [
        (GROUP, False),
        (GROUP + EXTENSION, True),
        ("", False),
        ("group-extensions = []\n", False),
        ('group-extensions = [{id = "x"}]\n', True),
        ('[["group-extensions"]]\nid = "x"\n', True),
        ("# group-extensions\n", False),
        ('[[group]]\nid = "group-extensions"\n', False),
    ],
)
def test_which_groups_have_extensions(text: str, has: bool) -> None:
    assert group.has_extensions("g", text.encode()) is has
    assert group.has_extensions("g", group.without_extensions("g", text.encode())) is False


@pytest.mark.parametrize(
    "text", [b"group-extensions = 3\n", b"[[group-extensions\n", b"\xff group-extensions", b"group-extensions = [1\n"]
)
def test_a_group_that_is_none_says_so(text: bytes) -> None:
    with pytest.raises(BrokenFile, match=r"/l/group\.toml"):
        group.has_extensions("/l/group.toml", text)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (b"\xff", "is not UTF-8 at byte 0"),
        (b"[run-image", "is not valid TOML"),
        (b"[run-image]\nreference = 5\n", "reference is not a string but 5"),
        (b'[run-image]\nreference = "x"\nimage = []\n', "image is not a string"),
        (b'[run-image]\nreference = "x"\nextend = "yes"\n', "extend is not true or false"),
        (b"run-image = 1\n", "run-image is not a table"),
        (b"[run-image]\ntarget = 1\n", "target is not a table"),
        (b"[run-image.target]\nos = 1\n", "os is not a string"),
        (b"image = 1\n", "image is not a table"),
        (b'[run-image]\nreference = ["' + 100 * b"x" + b'"]\n', f"reference is not a string but ['{78 * 'x'}"),
    ],
)
def test_an_analyzed_toml_that_is_none_says_so_and_names_the_file(
    tmp_path: pathlib.Path, text: bytes, message: str
) -> None:
    path = tmp_path / "analyzed.toml"
    path.write_bytes(text)
    with pytest.raises(BrokenFile) as raised:
        analyzed.read(str(path))
    assert str(path) in str(raised.value)
    assert message in str(raised.value)
    assert "x" * 79 not in str(raised.value)
    assert raised.value.tip


def test_what_is_the_same_still_is_not_parsed_again(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    path.write_text(analyzed_toml("R", NAME))
    known = analyzed.read(str(path))
    path.chmod(0o600)
    again = analyzed.read(str(path), known=known)
    assert again.values is known.values
    assert stat.S_IMODE(again.about.st_mode) == 0o600
    path.write_text(analyzed_toml("S", NAME))
    assert analyzed.read(str(path), known=known).reference == "S"


def test_what_is_read_where_only_the_least_is_there(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    for text in ('[run-image]\nreference = "r:1"\n', "[run-image]\nreference = 'r:1'\n"):
        path.write_text(text)
        found = analyzed.read(str(path))
        assert (found.run_image, found.reference, found.kind, found.image) == (True, "r:1", "name", "")
        assert (found.target_os, found.marker, found.previous) == ("", None, "empty")
    path.write_text("[image]\n")
    assert (analyzed.read(str(path)).run_image, analyzed.read(str(path)).kind) == (False, "empty")


def test_what_is_read_of_an_analyzed_toml(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    canonical = analyzed_toml("R", NAME, previous=ID, extra="  extend = true\n  daemon = false\n  [run-image.target]\n")
    for text in (canonical + '    os = "linux"\n', canonical + "    os = 'linux'\n"):
        path.write_text(text)
        found = analyzed.read(str(path))
        assert (found.run_image, found.reference, found.image) == (True, "R", NAME)
        assert (found.target_os, found.marker, found.previous) == ("linux", False, "id")
    path.write_text("")
    found = analyzed.read(str(path))
    assert (found.run_image, found.reference, found.image, found.marker) == (False, "", "", None)
    path.write_text('[run-image.target]\nos = "linux"\n')
    assert analyzed.read(str(path)).run_image


def test_links_pipes_and_directories_are_not_read(tmp_path: pathlib.Path) -> None:
    (tmp_path / "target").write_text("x")
    (tmp_path / "link").symlink_to("target")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    for name, message in (("link", "symbolic link"), ("pipe", "regular file"), ("directory", "regular file")):
        with pytest.raises(BrokenFile, match=message):
            files.read(str(tmp_path / name))
    with pytest.raises(MissingFile):
        files.read(str(tmp_path / "nothing"))
    with pytest.raises(BrokenFile, match="more than the"):
        files.read(str(tmp_path / "target"), limit=0)


def snapshot_of(path: pathlib.Path) -> analyzed.Analyzed:
    path.write_text(analyzed_toml("OLD", NAME))
    return analyzed.read(str(path))


def test_a_write_keeps_owner_and_mode_and_leaves_nothing(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    snapshot_of(path)
    path.chmod(0o751)
    if os.getuid() == 0:
        os.chown(path, 1234, 4321)
    before = path.stat()
    analyzed.write_reference(analyzed.read(str(path)), ID)
    after = path.stat()
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert os.listdir(tmp_path) == ["analyzed.toml"]
    assert path.read_text() == analyzed_toml(ID, NAME)


def test_a_write_of_the_same_value_leaves_the_file_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    snapshot = snapshot_of(path)
    analyzed.write_reference(snapshot, "OLD")
    assert path.stat().st_ino == snapshot.about.st_ino


def test_a_file_that_somebody_changed_meanwhile_is_left_alone(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    snapshot = snapshot_of(path)
    path.write_text("somebody = true\n")
    with pytest.raises(EditRefused, match="changed by another process"):
        analyzed.write_reference(snapshot, ID)
    assert path.read_text() == "somebody = true\n"


def test_overwriting_keeps_the_inode_and_cuts_the_rest_off(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"a long old content\n")
    inode = path.stat().st_ino
    replacing.overwrite(str(path), b"a long old content\n", b"new\n")
    assert (path.read_bytes(), path.stat().st_ino) == (b"new\n", inode)
    replacing.overwrite(str(path), b"new\n", b"longer again\n")
    assert path.read_bytes() == b"longer again\n"


def test_a_file_with_two_names_is_not_overwritten(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "f"
    path.write_bytes(b"old")
    os.link(path, tmp_path / "other")
    with pytest.raises(OSError, match="Too many links"):
        replacing.overwrite(str(path), b"old", b"new")
    assert path.read_bytes() == b"old"


def test_what_a_killed_process_left_is_swept(tmp_path: pathlib.Path) -> None:
    """Who lives holds a lock on what is on its way."""
    path = tmp_path / "f"
    (tmp_path / ".f.1.analyzed-shim").write_text("left")
    (tmp_path / ".g.2.analyzed-shim").write_text("left")
    living = tmp_path / ".f.3.analyzed-shim"
    with living.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        replacing.replace(str(path), b"new", 0o600)
        assert sorted(os.listdir(tmp_path)) == [living.name, "f"]
    replacing.replace(str(path), b"newer", 0o600)
    assert os.listdir(tmp_path) == ["f"]


def test_a_replacement_that_fails_leaves_nothing(tmp_path: pathlib.Path) -> None:
    (tmp_path / "f").mkdir()
    with pytest.raises(OSError, match="directory"):
        replacing.replace(str(tmp_path / "f"), b"new", 0o600)
    assert os.listdir(tmp_path) == ["f"]


def test_the_note_is_left_and_read(tmp_path: pathlib.Path) -> None:
    path = note.path_beside(str(tmp_path / "analyzed.toml"))
    assert note.read(path) is None
    for daemon in (True, False):
        note.leave(path, daemon)
        assert note.read(path) is daemon
        assert tomllib.loads(pathlib.Path(path).read_text()) == {"daemon": daemon}
        assert stat.S_IMODE(os.stat(path).st_mode) == 0o644
    assert os.listdir(tmp_path) == [note.NAME]


@pytest.mark.parametrize("content", [b"daemon = 1\n", b"\xff", b"daemon", b"x" * 70_000])
def test_a_note_that_is_none_says_so(tmp_path: pathlib.Path, content: bytes) -> None:
    path = tmp_path / note.NAME
    path.write_bytes(content)
    with pytest.raises(BrokenFile, match="analyzed-shim"):
        note.read(str(path))


def test_a_note_beside_other_values_is_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / note.NAME
    path.write_text("daemon = false\n[more]\nx = 1\n")
    assert note.read(str(path)) is False


def test_a_note_without_the_key_says_nothing(tmp_path: pathlib.Path) -> None:
    for content in (b"", b"# nothing\n", GROUP.encode()):
        (tmp_path / note.NAME).write_bytes(content)
        assert note.read(str(tmp_path / note.NAME)) is None


@pytest.mark.parametrize("daemon", [True, False, None])
def test_a_note_can_be_a_group_too(tmp_path: pathlib.Path, daemon: bool | None) -> None:
    path = tmp_path / note.NAME
    note.leave(str(path), daemon, group=GROUP.encode())
    told = {} if daemon is None else {"daemon": daemon}
    assert tomllib.loads(path.read_text()) == {**told, **tomllib.loads(GROUP)}
    assert note.read(str(path)) is daemon


def test_a_group_with_a_key_of_the_note_s_can_not_be_both(tmp_path: pathlib.Path) -> None:
    for daemon in (True, None):
        with pytest.raises(BrokenFile, match=r"analyzed-shim\.toml"):
            note.leave(str(tmp_path / note.NAME), daemon, group=b"daemon = true\n" if daemon else b"\x00")
    assert os.listdir(tmp_path) == []


# What the user of the build may write, who may mean harm.


def adversarial(length: int) -> dict[str, str]:
    """Return texts of about this many characters that are hard on a parser, by what they are."""
    return {
        "tables": "".join(f"[t{n}]\n" for n in range(length // 7)),
        "array tables": "[[a]]\n[a.b.c]\nx = 1\n" * (length // 20),
        "a long key": "[" + "a." * (length // 2) + "a]\n",
        "a long key with blanks": "x = {" + "a . " * (length // 4) + "a = 1}\n",
        "a long quoted key": '"a".' * (length // 4) + '"a" = 1\n',
        "many keys of 80 parts": "".join("[" + "a." * 80 + f"b{n}]\n" for n in range(length // 170)),
        "dotted keys": "".join(f"a.b.c.k{n} = 1\n" for n in range(length // 12)),
        "keys": "".join(f"k{n} = 1\n" for n in range(length // 8)),
        "deep arrays": "x = " + "[" * (length // 2) + "]" * (length // 2) + "\n",
        "deep tables": "x = " + "{a=" * (length // 4) + "1" + "}" * (length // 4) + "\n",
        "an integer": "x = " + "9" * length + "\n",
        "a hexadecimal integer": "x = 0x" + "f" * length + "\n",
        "quotation marks": "x = '" + '".' * (length // 2) + "'\n",
        "escapes": 'x = "' + '\\"' * (length // 2) + '"\n',
        "backslashes outside": '\\"' * (length // 2) + "." * 200 + "\n",
        "NULs": "\0" * length,
        "headers": "[run-image]\n" * (length // 12),
        "headers in a string": 'x = """\n' + "[run-image]\n" * (length // 12) + '"""\n',
        "headers in comments": "# [run-image]\n" * (length // 14),
        "the value": "y = [\n" + f'"{ID}",\n' * (length // 68) + "]\n",
        "an impossible date": "x = 9999-99-99\n",
    }


RUN_IMAGE = '[run-image]\n  reference = "r:1"\n  image = "r:1"\n'
BY_HAND = "[run-image]\n  reference = 'r:1'\n"


def seconds(text: str) -> float:
    """Return how long all that is done with such a file takes together; it ends well or in an error of ours."""
    began = time.monotonic()
    for data in (EXTENSION + text, text + EXTENSION):
        try:
            group.has_extensions("g", data.encode())
            group.without_extensions("g", data.encode())
        except BrokenFile:
            pass
    for data in (text + "\n" + RUN_IMAGE, RUN_IMAGE + text, BY_HAND + text):
        try:
            edited_as(data.encode(), ID)
        except (BrokenFile, EditRefused):
            pass
    return time.monotonic() - began


@pytest.mark.parametrize("kind", adversarial(100))
def test_hard_texts_take_linear_time_and_are_no_tracebacks(kind: str) -> None:
    small, large = (seconds(adversarial(length)[kind]) for length in (20_000, 80_000))
    assert large < 4 * small * 3 + 3, f"{small:.2f} s, and four times as much {large:.2f} s"


def test_a_file_that_is_too_large_is_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    with path.open("wb") as file:
        file.truncate(100 << 30)
    with pytest.raises(BrokenFile, match="more than the 16777216 that are read"):
        files.read(str(path))


def test_a_file_that_grows_while_it_is_read_is_not_read_to_its_end(tmp_path: pathlib.Path) -> None:
    """Its size is looked at first; one without a size, such as a file of the kernel's, has none to look at."""
    data, about = files.read("/proc/self/maps", limit=1 << 20)
    assert about.st_size == 0 < len(data)
    with pytest.raises(BrokenFile, match="large"):
        files.read("/proc/self/maps", limit=10)


def test_a_living_shim_s_temporary_file_is_not_swept(tmp_path: pathlib.Path) -> None:
    """One shim is stopped before its file takes the other's place; another replaces a file beside it meanwhile."""
    code = (
        "import os, sys\n"
        "from shim.layers import replacing\n"
        "replace = os.replace\n"
        "def wait(*names, **directories):\n"
        "    print('up', flush=True); sys.stdin.readline(); replace(*names, **directories)\n"
        "os.replace = wait\n"
        f"replacing.replace({str(tmp_path / 'f')!r}, b'first', 0o600)\n"
    )
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    with subprocess.Popen([sys.executable, "-c", code], **pipes) as other:  # type: ignore[call-overload]
        assert other.stdout.readline() == "up\n"
        replacing.replace(str(tmp_path / "g"), b"second", 0o600)
        assert len(os.listdir(tmp_path)) == 2
        other.communicate("go\n")
    assert other.returncode == 0
    assert (tmp_path / "f").read_bytes() == b"first"


def test_toml_is_what_it_is_also_with_many_dots() -> None:
    for text in ('x = "' + "1.2." * 100 + '"\n', "x = '" + "." * 300 + "'\n", "# " + "." * 90 + "\n"):
        assert toml.parse("f", text) == tomllib.loads(text)
