"""Which daemon is asked: the one that the phase's own client would ask, and nobody else."""

from __future__ import annotations

import os
import pathlib
import random
import socket
from collections.abc import Callable, Iterator, Mapping

import pytest

from shim.daemon import proxy
from shim.daemon.elsewhere import elsewhere
from shim.daemon.find import DEFAULT, Address, find
from shim.errors import Unreachable
from shim.words import plain, without_secrets

Listen = Callable[[str], str]


@pytest.fixture
def listen(tmp_path: pathlib.Path) -> Iterator[Listen]:
    """Listen at a path below the test's directory, and return the path."""
    opened: list[socket.socket] = []

    def start(path: str) -> str:
        place = tmp_path / path
        place.parent.mkdir(parents=True, exist_ok=True)
        opened.append(socket.socket(socket.AF_UNIX))
        opened[-1].bind(str(place))
        opened[-1].listen()
        return str(place)

    yield start
    for one in opened:
        one.close()


# The address.


@pytest.mark.parametrize(
    ("url", "host", "path"),
    [
        ("tcp://h:1", "h:1", ""),
        ("tcp://h", "h", ""),
        ("tcp://:2375", ":2375", ""),
        ("tcp://h:1/base/", "h:1", "/base/"),
        ("tcp://h:1/a%20b", "h:1", "/a b"),
        ("tcp://user:word@h:1", "h:1", ""),
        ("tcp://h:1?token=secret", "h:1", ""),
        ("tcp://h:1#part", "h:1", ""),
        ("tcp://[::1]:2375", "[::1]:2375", ""),
        # Anything but unix and tcp is taken for TCP, and what follows for the host, path and all.
        ("http://h:1", "h:1", ""),
        ("https://h:1", "h:1", ""),
        ("http://h:1/base", "h:1/base", ""),
        ("ssh://user@h", "user@h", ""),
        ("TCP://h:1", "h:1", ""),
        ("fd://h:1", "h:1", ""),
    ],
)
def test_tcp(url: str, host: str, path: str) -> None:
    found = find(url, {})
    assert (found.state, found.host, found.path, found.socket) == ("unasked", host, path, "")
    assert find(None, {"DOCKER_HOST": url}) == found
    assert not any(secret in found.url for secret in ("user", "word", "secret"))


@pytest.mark.parametrize(
    ("url", "words"),
    [
        ("/var/run/docker.sock", "no scheme"),
        ("h", "no scheme"),
        ("localhost:2375", "no scheme"),
        ("127.0.0.1:2375", "first path segment"),
        ("unix:/x.sock", "no scheme"),
        ("tcp:h:1", "no scheme"),
        ("tcp://", "nothing after it"),
        ("unix://", "nothing after it"),
        ("://h:1", "missing scheme"),
        (" tcp://h:1", "first path segment"),
        ("tcp://h:1 ", "invalid port"),
        ("tcp://h:x", "invalid port"),
        ("tcp://h h:1", "invalid character"),
        ("tcp://[::1:2375", "missing ']'"),
        ("tcp://h:1/%zz", "invalid URL escape in the path"),
        ("tcp://us er:word@h:1", "invalid userinfo"),
        ("tcp://user:wo%rd@h:1", "invalid URL escape in the userinfo"),
        ("tcp://h:1\x1b[31m", "invalid control character"),
        ("npipe:////./pipe/docker_engine", "named pipes"),
    ],
)
def test_an_address_that_the_phase_s_client_refuses(url: str, words: str) -> None:
    """The line names what it was given by, and nothing secret."""
    for found, name in (
        (find(url, {}), "--docker-host"),
        (find(None, {"DOCKER_HOST": url}), "DOCKER_HOST"),
        (find(url, {"DOCKER_HOST": url}), "DOCKER_HOST"),  # settings take either for the one
    ):
        assert found.state == "silent"
        assert found.detail.startswith(f"{name} is ")
        assert words in found.detail
        assert "(use unix:///PATH or tcp://HOST:PORT)" in found.detail
        assert found.detail.isprintable()
        assert "word" not in found.detail


def test_where_nothing_is_given_it_is_the_usual_socket() -> None:
    assert find(None, {}) == find("", {"DOCKER_HOST": ""}) == find(DEFAULT, {})
    assert find(None, {}).socket == "/var/run/docker.sock"


def test_the_option_wins_over_the_variable() -> None:
    assert find("tcp://a:1", {"DOCKER_HOST": "tcp://b:1"}).host == "a:1"


def test_a_socket_and_what_stands_in_its_place(tmp_path: pathlib.Path, listen: Listen) -> None:
    path = listen("s.sock")
    assert find(f"unix://{path}", {}) == Address(url=f"unix://{path}", state="unasked", detail="", socket=path)
    (tmp_path / "file").touch()
    (tmp_path / "dangling").symlink_to("nowhere")
    (tmp_path / "loop").symlink_to("loop")
    (tmp_path / "link").symlink_to(path)
    for name, state, detail in (
        ("link", "unasked", ""),
        ("file", "silent", "{} is not a socket"),
        ("", "silent", "{} is not a socket"),
        ("absent", "absent", "{} not found"),
        ("absent/s.sock", "absent", "{} not found"),
        ("file/s.sock", "absent", "{} not found"),
        ("dangling", "absent", "{} not found"),
        ("loop", "absent", "{} not found"),
    ):
        found = find(f"unix://{tmp_path}/{name}", {})
        assert (found.state, found.detail) == (state, detail.format(f"{tmp_path}/{name}")), name


@pytest.mark.skipif(os.getuid() != 0, reason="takes on another user's rights")
@pytest.mark.parametrize("closed", ["socket", "directory"])
def test_a_socket_without_permission(tmp_path: pathlib.Path, listen: Listen, closed: str) -> None:
    path = listen("in/s.sock")
    os.chmod(path if closed == "socket" else tmp_path / "in", 0o700)
    os.chown(path if closed == "socket" else tmp_path / "in", 0, 0)
    for parent in pathlib.Path(path).parents:
        if parent != tmp_path / "in" and parent.stat().st_mode & 0o777 == 0o700:
            parent.chmod(0o755)
    groups = os.getgroups()
    os.setgroups([])
    os.setegid(1000)
    os.seteuid(1000)
    try:
        found = find(f"unix://{path}", {})
    finally:
        os.seteuid(0)
        os.setegid(0)
        os.setgroups(groups)
    assert (found.state, found.detail) == ("denied", f"permission denied on {path}")


def test_the_path_of_a_socket_may_have_107_bytes(tmp_path: pathlib.Path, listen: Listen) -> None:
    path = listen("x" * (107 - len(str(tmp_path)) - 1))
    assert find(f"unix://{path}", {}).state == "unasked"
    found = find(f"unix://{path}x", {})
    assert found.state == "silent"
    assert "too long (108 bytes, 107 at most)" in found.detail
    assert find("unix:///" + "ü" * 60, {}).state == "silent"  # bytes, not letters


def test_escapes_count_where_the_lifecycle_opens_the_socket_itself(listen: Listen) -> None:
    """It looks for the socket by the URL's path, and opens one that is root's; its client takes the text as it is."""
    path, literal = listen("a b.sock"), listen("c%20d.sock")
    for url, mine in ((path.replace(" ", "%20"), path), (path + "?query", path), (literal, literal)):
        as_root = find(f"unix://{url}", {}).socket
        assert as_root == (mine if os.stat(mine).st_uid == 0 else url)
    if os.getuid() == 0:
        os.chown(path, 1000, 1000)
        assert find(f"unix://{path.replace(' ', '%20')}", {}).state == "absent"
        assert find(f"UNIX://{literal}", {}).socket == ""  # TCP, to a host that nobody has


def test_an_abstract_socket() -> None:
    assert find("unix://@name", {}).state == "unasked"
    assert find("unix://@" + "x" * 107, {}).state == "unasked"
    assert find("unix://@" + "x" * 108, {}).state == "silent"


def test_nothing_else_of_the_machine_counts(tmp_path: pathlib.Path, listen: Listen) -> None:
    """No context, no other socket, no configuration: DESIGN.md's first law."""
    for path in ("run/docker.sock", "run/podman/podman.sock", ".docker/run/docker.sock", ".rd/docker.sock"):
        listen(path)
    (tmp_path / ".docker" / "config.json").write_text('{"currentContext": "mine"}')
    environ = {
        "HOME": str(tmp_path),
        "XDG_RUNTIME_DIR": str(tmp_path / "run"),
        "DOCKER_CONTEXT": "mine",
        "DOCKER_CONFIG": str(tmp_path / ".docker"),
        "CONTAINER_HOST": "tcp://h:1",
    }
    assert find(None, environ) == find(None, {})


def reference(environ: Mapping[str, str]) -> str:
    """Whom a phase asks, by "Which daemon a phase asks" of the measured facts alone."""
    return environ.get("DOCKER_HOST") or "unix:///var/run/docker.sock"


@pytest.mark.parametrize("seed", range(200))
def test_whom_the_shim_asks_is_whom_the_phase_asks(tmp_path: pathlib.Path, listen: Listen, seed: int) -> None:
    pick = random.Random(seed)
    sockets = [listen(f"{name}.sock") for name in ("a", "b")]
    hosts = ["", *(f"unix://{path}" for path in sockets), f"unix://{tmp_path}/absent", "tcp://h:1", "tcp://h:2/base"]
    others = {
        "DOCKER_CONTEXT": ["", "mine"],
        "DOCKER_CONFIG": [str(tmp_path), "/nowhere"],
        "XDG_RUNTIME_DIR": [str(tmp_path), ""],
        "HOME": [str(tmp_path), "/"],
        "DOCKER_TLS_VERIFY": ["", "0", "1"],
        "HTTP_PROXY": ["http://p:1"],
        "REQUESTS_CA_BUNDLE": ["/nowhere"],
    }
    environ = {name: pick.choice(values) for name, values in others.items() if pick.random() < 0.5}
    if pick.random() < 0.8:
        environ["DOCKER_HOST"] = pick.choice(hosts)
    (tmp_path / "config.json").write_text(pick.choice(["{}", '{"currentContext": "mine"}', "[", "null"]))
    assert find(None, environ).url == reference(environ)


# Proxies.


def through(host: str, tls: bool = False, **environ: str) -> str:
    found = proxy.choose(host, tls, environ)
    return f"{found.host}:{found.port}" if found else ""


@pytest.mark.parametrize(
    ("host", "tls", "environ", "expected"),
    [
        ("h:1", False, {"HTTP_PROXY": "http://p:3128"}, "p:3128"),
        ("h:1", False, {"http_proxy": "p:3128"}, "p:3128"),
        ("h:1", False, {"HTTP_PROXY": "p"}, "p:80"),
        ("h:1", False, {"HTTP_PROXY": "socks5://p"}, "p:1080"),
        ("h:1", False, {"HTTP_PROXY": "", "http_proxy": "http://p:1"}, "p:1"),
        ("h:1", False, {"HTTPS_PROXY": "http://p:1"}, ""),
        ("h:1", False, {"ALL_PROXY": "http://p:1"}, ""),
        ("h:1", False, {"HTTP_PROXY": "[bad"}, ""),
        ("h:1", True, {"HTTPS_PROXY": "http://p:1"}, "p:1"),
        ("h:1", True, {"https_proxy": "https://p"}, "p:443"),
        ("h:1", True, {"HTTP_PROXY": "http://p:1"}, ""),
        *(
            (host, tls, {"HTTP_PROXY": "http://p:1", "HTTPS_PROXY": "http://p:1"}, "")
            for host in ("localhost:1", "127.0.0.1:1", "127.9.9.9", "[::1]:1", "[::ffff:127.0.0.1]:1")
            for tls in (True, False)
        ),
        *(
            ("sub.h.example:7", False, {"HTTP_PROXY": "http://p:1", name: value}, "")
            for name in ("NO_PROXY", "no_proxy")
            for value in ("*", "h.example", ".h.example", "*.h.example", "H.EXAMPLE", "a, sub.h.example:7 ", "example")
        ),
        *(
            ("sub.h.example:7", False, {"HTTP_PROXY": "http://p:1", "NO_PROXY": value}, "p:1")
            for value in (
                "",
                "ub.h.example",
                "sub.h.example:8",
                ".sub.h.example",
                "h.example:1",
                "10.0.0.0/8",
                "[",
                ",",
            )
        ),
        *(
            ("10.1.2.3:7", False, {"HTTP_PROXY": "http://p:1", "NO_PROXY": value}, "")
            for value in ("10.0.0.0/8", "10.1.2.3", "10.1.2.3:7", "x,10.1.2.0/24", "::ffff:10.1.2.3")
        ),
        *(
            ("10.1.2.3:7", False, {"HTTP_PROXY": "http://p:1", "NO_PROXY": value}, "p:1")
            for value in ("11.0.0.0/8", "10.1.2.3:8", "10.1.2", ".3", "10.0.0.0/255.0.0.0", "10.1.2.3/99")
        ),
        ("h:1", False, {"HTTP_PROXY": "http://p:1", "NO_PROXY": "", "no_proxy": "h"}, ""),
    ],
)
def test_a_proxy_is_used_as_net_http_uses_it(host: str, tls: bool, environ: dict[str, str], expected: str) -> None:
    assert through(host, tls, **environ) == expected


def test_a_proxy_that_a_cgi_script_must_not_use() -> None:
    with pytest.raises(Unreachable, match="HTTP_PROXY is not used where REQUEST_METHOD is set"):
        through("h:1", HTTP_PROXY="http://p:1", REQUEST_METHOD="GET")


def test_the_line_about_a_proxy_has_no_secrets() -> None:
    found = proxy.choose("h:1", False, {"http_proxy": "http://user:w%20d@p:1/?token=secret"})
    assert found
    assert (found.userinfo, found.shown) == (b"user:w d", "http_proxy=http://***@p:1/")


@pytest.mark.parametrize("host", ["h:99999", "h:1/", "127.1:1", "0:1", "1:2"])
def test_a_host_that_go_does_not_find(host: str) -> None:
    with pytest.raises(Unreachable):
        proxy.split_host(host, 80)


# Other engines, for `check`.


def test_what_points_elsewhere(tmp_path: pathlib.Path, listen: Listen) -> None:
    import hashlib
    import json

    used, other = listen("used.sock"), listen("run/docker.sock")
    podman = listen("run/podman/podman.sock")
    environ = {"HOME": str(tmp_path), "XDG_RUNTIME_DIR": str(tmp_path / "run")}
    usual = list(elsewhere(find(f"unix://{used}", {}), {"HOME": "/nowhere", "XDG_RUNTIME_DIR": "/nowhere"}))
    found = elsewhere(find(f"unix://{used}", {}), environ)
    expected = [("rootless Docker", f"unix://{other}"), ("rootless Podman", f"unix://{podman}")]
    assert [pair for pair in found if pair not in usual] == expected
    assert ("rootless Docker", f"unix://{other}") not in elsewhere(find(f"unix://{other}", {}), environ)

    config = tmp_path / ".docker" / "config.json"
    meta = tmp_path / ".docker" / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest() / "meta.json"
    meta.parent.mkdir(parents=True)
    config.write_text('{"currentContext": "mine"}')

    def contexts(host: object, **more: str) -> list[str]:
        meta.write_text(json.dumps({"Endpoints": {"docker": {"Host": host}}}))
        pairs = elsewhere(find(f"unix://{used}", {}), {**environ, **more})
        return [f"{what}: {url}" for what, url in pairs if "context" in what]

    by = f"the docker context mine (currentContext in {config})"
    assert contexts(f"unix://{other}") == [f"{by}: unix://{other}"]
    assert contexts("ssh://user:word@h") == [f"{by}: ssh://***@h"]
    assert contexts(7) == [f"{by}: an unknown address"]
    assert contexts(f"unix://{used}") == []
    assert contexts(f"unix://{other}", DOCKER_HOST="tcp://h:1") == []
    assert contexts(f"unix://{other}", DOCKER_CONTEXT="default") == []
    assert contexts("x", DOCKER_CONTEXT="lost") == ["the docker context lost (DOCKER_CONTEXT): an unknown address"]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"[]",
        b"null",
        b"7",
        b"{",
        b"\xff",
        b"[" * 100_000,
        b'{"currentContext": 7}',
        b'{"currentContext": null}',
        b'{"currentContext": ["a"]}',
        b'{"currentContext": "\\ud800"}',
        b'{"currentContext": "../../x"}',
        b'{"currentContext": "a\\u001b[31m"}',
        None,
    ],
)
def test_no_configuration_raises(tmp_path: pathlib.Path, content: bytes | None) -> None:
    (tmp_path / ".docker").mkdir()
    if content is None:
        os.mkfifo(tmp_path / ".docker" / "config.json")
    else:
        (tmp_path / ".docker" / "config.json").write_bytes(content)
    for what, url in elsewhere(find(None, {}), {"HOME": str(tmp_path)}):
        assert (what + url).isprintable()


# Words.


def test_what_others_wrote_becomes_one_printable_line() -> None:
    assert plain("a\x1b[31mb\r\nc\x00\x9b \u202e\u2028d\ud800") == "a\\x1b[31mb c\\x00\\x9b \\u202e d\\ud800"
    assert plain("x" * 1000) == "x" * 299 + "…"
    assert plain(ValueError()) == "ValueError"
    assert plain("ü 漢") == "ü 漢"


@pytest.mark.parametrize(
    ("address", "shown"),
    [
        ("tcp://user:word@h:1", "tcp://***@h:1"),
        ("tcp://user:wo/rd@h:1/p", "tcp://***@h:1/p"),
        ("tcp://user:w@rd@h:1", "tcp://***@h:1"),
        ("user:word@h:1", "***@h:1"),
        ("tcp://h:1/p?token=word", "tcp://h:1/p"),
        ("tcp://h:1/p#word", "tcp://h:1/p"),
        ("unix:///run/a@b.sock", "unix:///run/a@b.sock"),
        ("unix://@abstract", "unix://@abstract"),
        ("unix://user:word@/run/s", "unix://***@/run/s"),
        ("/run/a@b.sock", "/run/a@b.sock"),
        ("tcp://h:1", "tcp://h:1"),
        ("", ""),
    ],
)
def test_an_address_is_shown_without_secrets(address: str, shown: str) -> None:
    assert without_secrets(address) == shown
