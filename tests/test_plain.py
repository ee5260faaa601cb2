"""The line reader: exactly what it takes, as what, and what it leaves to tomllib."""

from __future__ import annotations

import tomllib

import pytest

from shim.layers import plain

TAKEN: dict[str, dict[str, plain.Table]] = {
    "": {"": {}},
    "# and so on\n" * 300: {"": {}},
    "\n": {"": {}},
    "# comment\n\n \t\n#\n": {"": {}},
    "# caf\u00e9 \u2028\n": {"": {}},
    'a = "b"': {"": {"a": "b"}},
    'a = "b"\n': {"": {"a": "b"}},
    'a="b"\n': {"": {"a": "b"}},
    ' \ta \t=\t "b" \t\n': {"": {"a": "b"}},
    'a = "b"\r\n[t]\r\nc = "d"\r\n': {"": {"a": "b"}, "t": {"c": "d"}},
    'A-z_09 = "b"\n': {"": {"A-z_09": "b"}},
    'a = ""\n': {"": {"a": ""}},
    'a = "#"\n': {"": {"a": "#"}},
    'a = "x # y = [z] {\'}"\n': {"": {"a": "x # y = [z] {'}"}},
    'a = "\u00e9"\n': {"": {"a": "\u00e9"}},
    'a = "say \\"b\\" \\\\ \\u0041"\n': {"": {"a": None}},
    "a = true\nb = false\n": {"": {"a": True, "b": False}},
    "a = 1\nb = -1.5\nc = +5\nd = 1_000\ne = 0x1f\nf = 1e5\n": {"": dict.fromkeys("abcdef")},
    "a = 1979-05-27\nb = 07:32:00\nc = 1979-05-27T07:32:00.5Z\n": {"": dict.fromkeys("abc")},
    'a = []\nb = ["x"]\nc = [1, 2]\nd = [ "x", \'y\' ]\n': {"": dict.fromkeys("abcd")},
    '[t]\n  k = "v"\n': {"": {}, "t": {"k": "v"}},
    '[run-image]\n  reference = "r"\n  [run-image.target]\n    os = "linux"\n': {
        "": {},
        "run-image": {"reference": "r"},
        "run-image.target": {"os": "linux"},
    },
    '[a.b]\nx = "1"\n[a]\ny = "2"\n': {"": {}, "a.b": {"x": "1"}, "a": {"y": "2"}},
    '[a.b]\n[a]\nc = "2"\n': {"": {}, "a.b": {}, "a": {"c": "2"}},
    '[a.b]\n[c]\nb = "2"\n': {"": {}, "a.b": {}, "c": {"b": "2"}},
    '[a]\nb = "1"\n[b]\nb = "2"\n': {"": {}, "a": {"b": "1"}, "b": {"b": "2"}},
    '[a]\nb = "1"\n[ab]\n[a.c]\nb = "1"\n': {"": {}, "a": {"b": "1"}, "ab": {}, "a.c": {"b": "1"}},
    '[[a]]\nk = "1"\n[[a]]\nk = "2"\n': {"": {}, "a": {"k": "2"}},
    '[[a]]\nk = "1"\n[[a]]\n': {"": {}, "a": {}},
    '[[a]]\n[a.b]\nx = "1"\n[[a]]\ny = "2"\n': {"": {}, "a": {"y": "2"}},
    '[[a]]\n[a.b]\nx = "1"\n[[a]]\n[a.b]\ny = "2"\n': {"": {}, "a": {}, "a.b": {"y": "2"}},
    '[[a]]\n[a.b]\n[[a]]\nb = "2"\n': {"": {}, "a": {"b": "2"}},
    '[[a]]\n[[a.b]]\n[[a.b]]\n[[a]]\n[a.b]\nx = "1"\n': {"": {}, "a": {}, "a.b": {"x": "1"}},
    '[[a]]\n[[a.b]]\nx = "1"\n[[a.b]]\nx = "2"\n[a.b.c]\n': {"": {}, "a": {}, "a.b": {"x": "2"}, "a.b.c": {}},
}
LEFT = {
    "a string of several lines in an array": (
        'a = ["""]\nb = "1"\n"""]\n',
        'a = ["""]\nb = "1"\n#"""]\n',
        "a = [''']\nb = 1\n#''']\n",
    ),
    "a string of several lines": ('a = """\nb = 1\n"""\n', "a = '''\nb = 1\n'''\n", 'a = """b"""\n'),
    "control characters": tuple(f"# {character}\n" for character in "\0\1\x08\x0b\x0c\x0e\x1f\x7f"),
    "a carriage return alone": ("a = 1\rb = 2\n", "# \rx", "a = 1\r\r\n"),
    "another kind of value": ("a = 'b'\n", "a = {}\n", "a = { b = 1 }\n", "a = inf\n", "a = nan\n", 'a = -inf."\n'),
    "a comment behind a value": ('a = "b" # c\n', "a = 1 # c\n", "a = [1] # ]\n", "a = true#\n"),
    "a comment behind a header": ("[a] # c\n", "[[a]] # c\n"),
    "what isn't complete": (
        'a = "b\n',
        "a = [1\n",
        'a = "\n',
        "a =\n",
        "a\n",
        "= 1\n",
        "[a\n",
        "[[a]\n",
        "[\n",
        "[[\n",
    ),
    "too much": (
        'a = "b"c"\n',
        'a = ""b"\n',
        'a = "b""\n',
        "a = 1]\n",
        "a = []]\n",
        'a = 1"\n',
        "[a]]\n",
        "[[a]]]\n",
        "a = 1 b = 2\n",
    ),
    "an array in an array": ("a = [[1]]\n", "a = [[1], [2]]\n", 'a = ["["]\n', 'a = ["#"]\n'),
    "another kind of key": ('"a" = 1\n', "a.b = 1\n", "a b = 1\n", "'a' = 1\n", "\u00e9 = 1\n"),
    "another kind of header": (
        "[]\n",
        "[a..b]\n",
        "[.a]\n",
        "[[a.]]\n",
        '["a"]\n',
        "[ a ]\n",
        "[[ a ]]\n",
        "[\u00e9]\n",
    ),
    "a key twice": ("a = 1\na = 2\n", "[t]\na = 1\nb = 1\na = 2\n"),
    "a table twice": ("[a]\n[a]\n", "[a]\n[b]\n[a]\n", "[[a]]\n[a.b]\n[a.b]\n", "[a.b]\n[a]\n[a.b]\n"),
    "a table and an array": ("[a]\n[[a]]\n", "[[a]]\n[a]\n", "[a.b]\n[[a]]\n", "[[a]]\n[[a.b]]\n[a.b]\n"),
    "a table that is a key": ("a = 1\n[a]\n", "[a]\nb = 1\n[a.b]\n", "[a]\nb = 1\n[a.b.c.d]\n", "a = 1\n[a.b]\n"),
    "a key that is a table": ("[a.b]\n[a]\nb = 1\n", "[a.b.c]\n[a]\nb = 1\n", "[a.c]\n[a.b.c]\n[a]\nb = 1\n"),
    "an array that is a key": ("a = 1\n[[a]]\n", "[a]\nb = 1\n[[a.b]]\n"),
}


@pytest.mark.parametrize("text", TAKEN)
def test_what_is_taken_is_what_tomllib_reads(text: str) -> None:
    assert plain.tables(text) == TAKEN[text]
    for name, table in TAKEN[text].items():
        value: object = tomllib.loads(text)
        for key in filter(None, name.split(".")):
            value = value[-1] if isinstance(value, list) else value
            assert isinstance(value, dict)
            value = value[key]
        value = value[-1] if isinstance(value, list) else value
        assert isinstance(value, dict)
        for key, scalar in table.items():
            assert type(scalar) is type(value[key]) and scalar == value[key] if scalar is not None else key in value


@pytest.mark.parametrize("text", [text for texts in LEFT.values() for text in texts])
def test_what_is_left_to_tomllib(text: str) -> None:
    assert plain.tables(text) is None
    assert plain.tables(f"# before\n\n{text}") is None
    assert plain.tables(f'{text}\n[after]\nx = "1"\n') is None


def test_lines_are_what_stands_there() -> None:
    text = '# c\n\n [[a.b]] \nk = "v"\n[t]'
    assert plain.lines(text) == [
        ("# c", None, "", ""),
        ("", None, "", ""),
        (" [[a.b]] ", ("a.b", True), "", ""),
        ('k = "v"', None, "k", '"v"'),
        ("[t]", ("t", False), "", ""),
    ]
    assert plain.lines(f"{text}\n") == [*(plain.lines(text) or ()), ("", None, "", "")]
    assert plain.lines(f"{text}\n?") is None
