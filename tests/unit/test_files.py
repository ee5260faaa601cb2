"""analyzed.toml, group.toml and the note: one value changes, or nothing does."""

from __future__ import annotations

import contextlib
import itertools
import os
import pathlib
import re
import stat
import struct
import subprocess
import sys
import time
import tomllib

import pytest

from shim import analyzed, files, group
from shim.errors import FileProblem, WriteRefused
from tests.support.forbid import FORBID
from tests.support.fuzz import edited_as, without_extensions
from tests.support.layers import EXTENSION, GROUP, ID, analyzed_toml
from tests.support.needs import leave_out
from tests.support.users import let_in

NAME = "registry.example/run:1.0"

EDITED = {
    "as the lifecycle writes it": analyzed_toml("OLD", NAME),
    "no final newline": '[run-image]\nreference = "OLD"',
    "CRLF, a tab and a comment": '[run-image]\r\n\treference = "OLD" # why\r\nimage = "x"\r\n',
    "bait": '[run-image] # [run-image]\nimage="x"#\nreference = "OLD"\nzz="no"\n[z]\nreference="no"\n',
    "bait in a string": 'a = """\n[run-image]\nreference = "no"\n"""\n[run-image]\nreference = "OLD"\n',
    "bait in a key": '["run-image\\n"]\nreference = "no"\n  [run-image]\n  reference = "OLD"\n',
    "nine times bait": 'a = """\n' + "[run-image]\n" * 9 + '"""\n[run-image]\nreference = "OLD"\n',
    "out of order": '[run-image.target]\nos = ""\n[run-image]\nreference = "OLD"\n',
    "more": '[run-image]\nreference = "OLD"\n[[metadata.buildpacks]]\nkey="é\\n\\u0000"\n[[metadata.buildpacks]]\n',
    "many dots": "a = '" + "." * 300 + "' # " + "." * 90 + '\n[run-image]\nreference = "OLD"\n',
}
OLD = ("", "registry.example/run@sha256:" + "5" * 64, NAME, "é 𝄞")


@pytest.mark.parametrize("kind", EDITED)
def test_one_value_changes_and_every_other_byte_stays(kind: str) -> None:
    head, tail = EDITED[kind].split('"OLD"')
    for old, new in itertools.product(OLD, (ID, NAME)):
        assert edited_as(f'{head}"{old}"{tail}'.encode(), new) == f'{head}"{new}"{tail}'.encode()


REFUSED = [
    *('[run-image]\nimage = "x"\n', '[ run-image ]\nreference = "OLD"\n', '["run-image"]\nreference = "OLD"\n'),
    *('run-image.reference = "OLD"\n', 'run-image = { reference = "OLD", image = "x" }\n'),
    *('[run-image]\nreference = """\nOLD"""\n', '[run-image]\nreference = "OLD"\nx = nan\n'),
    'a = """\n' + "[run-image]\n" * 10 + '"""\n[run-image]\nreference = "OLD"\n',
    "[run-image]\nreference = 'old'\n#".ljust(4097, "x"),
]


@pytest.mark.parametrize("text", REFUSED)
def test_what_no_lifecycle_writes_is_refused_and_stays_as_it_is(text: str) -> None:
    with pytest.raises(WriteRefused, match=r"analyzed\.toml") as raised:
        edited_as(text.encode(), ID)
    assert raised.value.tip


def test_every_kind_of_string_on_one_line_can_be_replaced_in_a_table_of_up_to_four_kilobytes() -> None:
    for literal in ("'OLD'", '"\\u004FLD"', '"""OLD"""', "'''OLD'''"):
        text = "# above\n" * 9 + f"[run-image]\nreference = {literal} # kept\n#".ljust(4096, "x")
        assert edited_as(text.encode(), ID).decode() == text.replace(literal, f'"{ID}"')


BROKEN = {
    b"": "has no [run-image]",
    **dict.fromkeys((b"\xff", b"[run-image", b"[run-image]\nx = " + b"9" * 5000), "is not valid TOML"),
    b"[run-image]\n" + b"a." * 101 + b"a = 1\n": "more than 100 parts",
    b"[run-image]\nreference = 5\n": "reference is not a string",
    b'[run-image]\nreference = "x"\nimage = []\n': "image is not a string",
    b"[[run-image]]\n": "run-image is not a table",
    b"[run-image]\ntarget = 1\n": "target is not a table",
    b"[run-image.target]\nos = 1\n": "os is not a string",
}


@pytest.mark.parametrize("text", BROKEN)
def test_an_analyzed_toml_that_is_none_says_so_and_names_the_file(tmp_path: pathlib.Path, text: bytes) -> None:
    path = tmp_path / "analyzed.toml"
    path.write_bytes(text)
    with pytest.raises(FileProblem, match=f"{path}.*{re.escape(BROKEN[text])}") as raised:
        analyzed.read(str(path))
    assert raised.value.tip and not raised.value.missing


def test_what_is_read_of_an_analyzed_toml(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    target = "  extend = true\n  [run-image.target]\n    os = 'linux'\n"
    for text, wanted in (
        (analyzed_toml("R", NAME, previous=ID, extra=target), ("R", NAME, "linux", NAME)),
        (analyzed_toml("R"), ("R", "", "", "R")),
        (analyzed_toml("", NAME), ("", NAME, "", NAME)),
        ("[run-image]\n", ("", "", "", "")),
    ):
        path.write_text(text)
        found = analyzed.read(str(path))
        assert (found.reference, found.image, found.target_os, found.name) == wanted


def test_links_pipes_directories_and_files_with_two_names_are_not_read_or_replaced(tmp_path: pathlib.Path) -> None:
    for name in ("target", "one"):
        (tmp_path / name).write_text("x")
    (tmp_path / "symlink").symlink_to("target")
    (tmp_path / "dangling").symlink_to("nowhere")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "directory").mkdir()
    os.link(tmp_path / "one", tmp_path / "two")
    before = sorted(os.listdir(tmp_path))
    messages = dict.fromkeys(("symlink", "dangling"), "symbolic link") | {"two": "hard link"}
    for name, message in (messages | dict.fromkeys(("pipe", "directory"), "not a regular file")).items():
        with pytest.raises(FileProblem, match=f"{name} can't be read: .*{message}"):
            files.read(str(tmp_path / name))
        with pytest.raises(WriteRefused, match=f"{name} can't be written: .*{message}"):
            files.replace(str(tmp_path / name), b"new")
    assert sorted(os.listdir(tmp_path)) == before
    assert (tmp_path / "target").read_text() == (tmp_path / "one").read_text() == "x"
    with pytest.raises(FileProblem, match="nothing not found") as raised:
        files.read(str(tmp_path / "nothing"))
    assert raised.value.missing


# Owner, mode, ACL and other attributes.


def acl(owner: int, user: int, group_bits: int, mask: int, other: int) -> bytes:
    """Return an ACL that gives user 1234 rights, as the kernel has it (acl(5))."""
    entries = [(1, owner, -1), (2, user, 1234), (4, group_bits, -1), (16, mask, -1), (32, other, -1)]
    return struct.pack("<I", 2) + b"".join(struct.pack("<HHi", *entry) for entry in entries)


ATTRIBUTES = {"user.note": b"kept\0\xff", "user.empty": b"", "system.posix_acl_access": acl(6, 6, 4, 6, 4)}


def attribute(path: pathlib.Path, name: str, value: bytes) -> None:
    try:
        os.setxattr(path, name, value)
    except OSError as problem:
        leave_out(f"no {name} on this file system: {problem.strerror}")


def state(path: pathlib.Path) -> tuple[object, ...]:
    about, attributes = path.stat(), {name: os.getxattr(path, name) for name in os.listxattr(path)}
    return stat.S_IMODE(about.st_mode), about.st_uid, about.st_gid, attributes


@pytest.fixture
def old(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "layers").mkdir()
    path = tmp_path / "layers" / "analyzed.toml"
    path.write_text(analyzed_toml("OLD", NAME))
    return path


def rewritten(path: pathlib.Path) -> bool:
    """Write the ID; return whether another file took the old one's place, and not the old one was written."""
    inode = path.stat().st_ino
    found = analyzed.write_reference(analyzed.read(str(path)), ID)
    assert path.read_text() == analyzed_toml(ID, NAME)
    assert os.listdir(path.parent) == [path.name]
    assert (found.reference, found.values["run-image"]) == (ID, {"reference": ID, "image": NAME})
    assert files.identity(found.about) == files.identity(path.stat())
    return path.stat().st_ino != inode


@pytest.mark.parametrize("umask", [0, 0o27, 0o777])
@pytest.mark.parametrize("mode", [0o600, 0o777, 0o440, 0o4755, 0o2755, 0o7711])
def test_a_replaced_file_keeps_its_mode_but_no_set_id_bit_and_a_new_one_is_everybody_s_to_read(
    old: pathlib.Path, mode: int, umask: int
) -> None:
    old.chmod(mode)
    _, *before = state(old)
    previous = os.umask(umask)
    try:
        assert rewritten(old)
        files.replace(str(old.parent / "new"), b"x")
    finally:
        os.umask(previous)
    assert state(old) == (mode & 0o777, *before)
    assert stat.S_IMODE((old.parent / "new").stat().st_mode) == 0o644


@pytest.mark.parametrize("names", [[], ["user.note"], ["system.posix_acl_access"], list(ATTRIBUTES)])
@pytest.mark.parametrize("default", [False, True])
def test_a_replaced_file_keeps_its_acl_and_other_attributes(old: pathlib.Path, names: list[str], default: bool) -> None:
    """A default ACL of the directory gives it nothing."""
    old.chmod(0o640)
    for name in names:
        attribute(old, name, ATTRIBUTES[name])
    if default:
        attribute(old.parent, "system.posix_acl_default", acl(7, 7, 5, 7, 0))
    before = state(old)
    assert rewritten(old)
    assert state(old) == before and set(os.listxattr(old)) == set(names)
    files.replace(str(old.parent / "new"), b"x")
    assert stat.S_IMODE((old.parent / "new").stat().st_mode) == 0o644


WRITE = f"import sys; from shim import analyzed; analyzed.write_reference(analyzed.read(sys.argv[1]), {ID!r})"


@pytest.mark.parametrize("call", ["fchmod", "fchown", "fremovexattr", "fsetxattr", "renameat"])
def test_a_share_that_forbids_something_has_the_same_file_written_in_place(old: pathlib.Path, call: str) -> None:
    attribute(old, "user.note", b"kept")
    attribute(old.parent, "system.posix_acl_default", acl(7, 7, 5, 7, 0))
    old.chmod(0o666)
    if os.getuid() == 0:
        os.chown(old, 0, 1000)
    needed = call != "fchown" or os.getuid() == 0
    for reference in ("OLD", "OLD" * 100) if needed else ("OLD",):
        old.write_text(analyzed_toml(reference, NAME))
        before, inode = state(old), old.stat().st_ino
        subprocess.run([*FORBID, call, sys.executable, "-c", WRITE, str(old)], check=True, timeout=60)
        assert (old.read_text(), state(old)) == (analyzed_toml(ID, NAME), before)
        assert (old.stat().st_ino == inode) is needed
        assert os.listdir(old.parent) == [old.name]


def test_a_directory_that_is_not_writable_has_the_same_file_written_in_place(old: pathlib.Path) -> None:
    """To root it is that of another user, as whom root acts."""
    let_in(old.parent)
    if os.getuid() == 0:
        os.chown(old.parent, 1000, 1000)
        os.chown(old, 1000, 1000)
    old.parent.chmod(0o555)
    assert not rewritten(old)
    old.chmod(0o444)
    with pytest.raises(WriteRefused, match=f"{old} can't be written: Permission denied"):
        files.replace(str(old), b"")
    with pytest.raises(WriteRefused, match="can't be removed"):
        files.remove(str(old))
    old.parent.chmod(0o755)
    assert old.read_text() == analyzed_toml(ID, NAME)


@pytest.mark.parametrize("how", ["written", "replaced", "of the same size"])
def test_a_file_that_somebody_changed_meanwhile_is_left_alone(old: pathlib.Path, how: str) -> None:
    before, found = files.identity(old.stat()), analyzed.read(str(old))
    assert analyzed.write_reference(found, "OLD") is found and files.identity(old.stat()) == before, "the same value"
    content = analyzed_toml("NEW" if how == "of the same size" else "somebody's", NAME)
    if how == "replaced":
        old.unlink()
    old.write_text(content)
    with pytest.raises(WriteRefused, match="changed meanwhile"):
        analyzed.write_reference(found, ID)
    assert old.read_text() == content


# group.toml without its extensions, and the note.


HAVE = (GROUP + EXTENSION, EXTENSION, 'group-extensions = [{id = "x"}]\n', '[["group-extensions"]]\nid = "x"\n')
HAVE_NOT = (GROUP, "", "group-extensions = []\n", "# group-extensions\n", '[[group]]\nid = "group-extensions"\n')


def test_which_groups_have_extensions() -> None:
    for text in HAVE + HAVE_NOT:
        assert group.has_extensions("g", text.encode()) is (text in HAVE)
    for data in (b"[[group-extensions\n", b"\xff group-extensions", b"group-extensions = [1\n"):
        with pytest.raises(FileProblem, match=r"/l/group\.toml"):
            group.has_extensions("/l/group.toml", data)


MORE = EXTENSION + "  optional = true\n  [group-extensions.more]\n    x = 1\n"
GROUPS = [GROUP + EXTENSION, EXTENSION + GROUP, GROUP + EXTENSION * 3 + GROUP, "# c\n" + MORE + GROUP + MORE]


@pytest.mark.parametrize("daemon", [True, False, None])
@pytest.mark.parametrize("text", GROUPS)
def test_the_note_has_the_group_without_its_extensions(text: str, daemon: bool | None) -> None:
    held = tomllib.loads(text)
    del held["group-extensions"]
    told = {} if daemon is None else {"daemon": daemon}
    for whole in (text, text.replace("\n", "\r\n"), text.rstrip("\n")):
        assert tomllib.loads(without_extensions(whole.encode(), daemon).decode()) == {**told, **held}


NOT_BY_A_DETECTOR = [
    *HAVE[2:],
    'x = """\n[[group-extensions]]\n"""\n[[group-extensions]]\nid = "x"\n',
    '[[group-extensions]]\nid = """\n[a]\n"""\n',
    f"daemon = 1\n{EXTENSION}",  # the note's own key
]


@pytest.mark.parametrize("text", NOT_BY_A_DETECTOR)
def test_extensions_that_no_detector_writes_so_can_not_be_left_out_of_a_group(text: str) -> None:
    with pytest.raises(WriteRefused, match=r"can't be left out of group\.toml"):
        without_extensions(text.encode(), True)


def test_the_note_is_left_and_read_or_says_why_not(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed-shim.toml"
    assert group.read_note(str(path)) is None
    for daemon in (True, False):
        group.leave_note(str(path), daemon)
        assert group.read_note(str(path)) is daemon
        group.leave_group(str(path), "g", (GROUP + EXTENSION).encode())  # which keeps what it says
        assert group.read_note(str(path)) is daemon
        assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert os.listdir(tmp_path) == [path.name]
    for content in (b"daemon = 1\n", b'daemon = "true"\n', b"\xff", b"daemon", b"[daemon]\n"):
        path.write_bytes(content)
        with pytest.raises(FileProblem, match=r"analyzed-shim\.toml"):
            group.read_note(str(path))
        group.leave_group(str(path), "g", (GROUP + EXTENSION).encode())  # which replaces what nobody can read
        assert group.read_note(str(path)) is None


# What the user of the build may write, who may mean harm.


def adversarial(length: int) -> dict[str, str]:
    """Return texts of about this many characters that are hard on a parser, by what they are."""
    return {
        "tables": "".join(f"[t{n}]\n" for n in range(length // 7)),
        "array tables": "[[a]]\n[a.b.c]\nx = 1\n" * (length // 20),
        "many keys of 80 parts": "".join("[" + "a." * 80 + f"b{n}]\n" for n in range(length // 170)),
        "dotted keys": "".join(f"a.b.c.k{n} = 1\n" for n in range(length // 12)),
        "deep arrays": "x = " + "[" * (length // 2) + "]" * (length // 2) + "\n",
        "an integer": "x = " + "9" * length + "\n",
        "quotation marks": "x = '" + '".' * (length // 2) + "'\n",
        "quotes and dots on lines": ('"' + "." * 101 + "\n") * (length // 103),
        "headers": "[run-image]\n" * (length // 12),
        "headers in a string": 'x = """\n' + "[run-image]\n" * (length // 12) + '"""\n',
    }


def seconds(text: str) -> float:
    """Return how long all that is done with such a file takes; it ends well or in an error of ours."""
    run_image = '[run-image]\n  reference = "r:1"\n  image = "r:1"\n'
    began = time.process_time()  # other tests run beside this one
    for data in (EXTENSION + text, text + EXTENSION):
        with contextlib.suppress(FileProblem, WriteRefused):
            group.has_extensions("g", data.encode())
            without_extensions(data.encode())
    for data in (text + "\n" + run_image, run_image + text):
        with contextlib.suppress(FileProblem, WriteRefused):
            edited_as(data.encode(), ID)
    return time.process_time() - began


@pytest.mark.parametrize("kind", adversarial(100))
def test_hard_texts_take_linear_time_and_are_no_tracebacks(kind: str) -> None:
    small, large = (seconds(adversarial(length)[kind]) for length in (20_000, 80_000))
    assert large < 4 * small * 3 + 1, f"{small:.2f} s, and four times as much {large:.2f} s"


def test_a_file_that_is_too_large_is_not_read(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "analyzed.toml"
    for size in (files.LIMIT + 1, 100 << 30):
        with path.open("wb") as file:
            file.truncate(size)
        with pytest.raises(FileProblem, match="more than the 16777216 bytes"):
            files.read(str(path))
    os.truncate(path, files.LIMIT)
    assert len(files.read(str(path))[0]) == files.LIMIT


def test_sixteen_megabytes_are_edited_byte_for_byte(old: pathlib.Path) -> None:
    block = f'[[metadata.buildpacks]]\n  key = "{ID * 10_000}"\n'
    text = analyzed_toml("OLD", NAME) + "\n" + block * ((files.LIMIT - 1000) // len(block))
    old.write_text(text)
    analyzed.write_reference(analyzed.read(str(old)), ID)
    assert old.read_text() == text.replace('"OLD"', f'"{ID}"')
