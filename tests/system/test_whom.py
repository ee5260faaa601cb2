"""Whom a real phase asks and whom the shim asks, in random environments, against daemons that log.

The phases are in the directory that LIFECYCLE_DIR names; without one this is left out.
"""

from __future__ import annotations

import hashlib
import http.server
import json
import os
import pathlib
import random
import shutil
import socketserver
import ssl
import subprocess
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import trustme

from tests.support.build import SHIM, Build
from tests.support.certificates import certificates, serving
from tests.support.layers import Layers

LIFECYCLE = os.environ.get("LIFECYCLE_DIR", "")
SEEDS = int(os.environ.get("FUZZ", "1")) * 100
pytestmark = [
    pytest.mark.skipif(not LIFECYCLE, reason="LIFECYCLE_DIR names no directory of real phases"),
    pytest.mark.skipif(os.getuid() != 0, reason="mounts a /run of its own, which needs root"),
]
USUAL = 'mount -t tmpfs none /run; ln -s "$0" /run/docker.sock; exec "$@"'
"""What has a daemon at /var/run/docker.sock, for what it starts only."""


class Daemons:
    """Daemons that have no image and write down who was asked for what."""

    def __init__(self, directory: pathlib.Path) -> None:
        self.directory = directory
        self.asked: list[str] = []
        self.servers: list[Any] = []
        self.at: dict[str, str] = {}
        authority = trustme.CA()
        self.mine = certificates(directory / "mine", authority)
        self.theirs = certificates(directory / "theirs", trustme.CA())
        for name in ("usual", "unix", "context"):
            self.start(name, socketserver.ThreadingUnixStreamServer, str(directory / f"{name}.sock"))
        for name in ("tcp", "proxy"):
            self.start(name, http.server.ThreadingHTTPServer, ("127.0.0.1", 0))
        self.start(
            "tls", http.server.ThreadingHTTPServer, ("127.0.0.1", 0), serving(authority, "127.0.0.1", "localhost")
        )

    def start(self, name: str, kind: Any, at: Any, context: ssl.SSLContext | None = None) -> None:
        daemons = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                daemons.asked.append(name)
                ping = self.path.endswith("/_ping")
                body = b"OK" if ping else b'{"message":"no such image"}'
                self.send_response(200 if ping else 404)
                self.send_header("Api-Version", "1.41")
                self.send_header("Content-Type", "text/plain" if ping else "application/json")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                if self.command == "GET":
                    self.wfile.write(body)

            do_HEAD = do_GET  # noqa: N815  # the standard library asks by these names
            do_POST = do_GET  # noqa: N815
            do_CONNECT = do_GET  # noqa: N815

            def log_message(self, *_: object) -> None:
                pass

            def address_string(self) -> str:
                return name

        class Server(kind):  # type: ignore[misc]
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        server = Server(at, Handler)
        if context:
            server.socket = context.wrap_socket(server.socket, server_side=True)
        self.servers.append(server)
        self.at[name] = f"unix://{at}" if isinstance(at, str) else f"127.0.0.1:{server.server_address[1]}"
        threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True).start()

    def stop(self) -> None:
        for server in self.servers:
            server.shutdown()
            server.server_close()

    def ask(self, command: list[str], environ: dict[str, str], cwd: pathlib.Path) -> set[str]:
        """Run what asks, and return whom it asked."""
        self.asked.clear()
        usual = self.at["usual"].removeprefix("unix://")
        subprocess.run(
            ["unshare", "-m", "sh", "-ec", USUAL, usual, *command],
            env=environ,
            cwd=cwd,
            capture_output=True,
            check=False,
            timeout=60,
        )
        return set(self.asked)


@pytest.fixture(scope="module")
def daemons(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Daemons]:
    daemons = Daemons(tmp_path_factory.mktemp("whom"))
    yield daemons
    daemons.stop()


def environment(dice: random.Random, daemons: Daemons, home: pathlib.Path) -> dict[str, str]:
    """A user's environment, as there are and as there might be."""
    at = daemons.at
    hosts = [
        *(
            None,
            None,
            "",
            at["unix"],
            f"unix://{daemons.directory}/no-such.sock",
            f"tcp://{at['tcp']}",
            f"tcp://{at['tls']}",
        ),
        *(f"tcp://localhost:{at['tcp'].rpartition(':')[2]}", f"http://{at['tcp']}", f"https://{at['tls']}", at["tcp"]),
        *(at["unix"].removeprefix("unix://"), "ssh://nowhere.invalid", "tcp://", "unix://", "banana"),
    ]
    values = {
        "DOCKER_HOST": dice.choice(hosts),
        "DOCKER_CERT_PATH": dice.choice([None, None, "", daemons.mine, daemons.mine, daemons.theirs, "/no/such"]),
        "DOCKER_TLS_VERIFY": dice.choice([None, "", "1", "0", "banana"]),
        "DOCKER_TLS": dice.choice([None, "1"]),
        "DOCKER_API_VERSION": dice.choice([None, None, "", "1.30", "v1.30"]),
        "DOCKER_CONTEXT": dice.choice([None, "mine", "lost"]),
        "DOCKER_CONFIG": dice.choice([None, str(home / ".docker"), "/no/such"]),
        "HTTP_PROXY": dice.choice([None, f"http://{at['proxy']}"]),
        "https_proxy": dice.choice([None, f"http://{at['proxy']}"]),
        "ALL_PROXY": dice.choice([None, f"http://{at['proxy']}"]),
        "NO_PROXY": dice.choice([None, "", "*", "daemon.example"]),
        "REQUESTS_CA_BUNDLE": dice.choice([None, "/no/such"]),
        "XDG_RUNTIME_DIR": dice.choice([None, str(daemons.directory)]),
    }
    if values["HTTP_PROXY"] and not values["NO_PROXY"] and not values["DOCKER_CERT_PATH"] and dice.random() < 0.5:
        values["DOCKER_HOST"] = "tcp://daemon.example:2375"
    given = {name: value for name, value in values.items() if value is not None}
    return {"PATH": os.environ["PATH"], "HOME": str(home), "CNB_PLATFORM_API": "0.11", **given}


def test_the_shim_asks_whom_a_real_phase_asks(
    daemons: Daemons, build: Build, layers: Layers, tmp_path: pathlib.Path
) -> None:
    home = tmp_path / "home"
    meta = home / ".docker" / "contexts" / "meta" / hashlib.sha256(b"mine").hexdigest()
    meta.mkdir(parents=True)
    context = {"Name": "mine", "Endpoints": {"docker": {"Host": daemons.at["context"]}}}
    (meta / "meta.json").write_text(json.dumps(context))
    (home / ".docker" / "config.json").write_text('{"currentContext": "mine"}')
    restorer = tmp_path / "restorer"
    shutil.copy(shutil.which("true") or "/bin/true", restorer)
    different, seen = [], set()
    for seed in range(SEEDS):
        environ = environment(random.Random(seed), daemons, home)
        analyzer = [
            f"{LIFECYCLE}/analyzer",
            "-daemon",
            "-layers",
            str(layers.path),
            "-run-image",
            "r.example/run",
            "app",
        ]
        phase = daemons.ask(analyzer, environ, tmp_path)
        layers.write("r.example/run:1", "r.example/run:1")
        layers.note.unlink(missing_ok=True)
        wrapped = [*SHIM, "run", "--pull-policy", "never", "--", str(restorer), "-layers", str(layers.path)]
        ours = daemons.ask(wrapped, {**environ, "PYTHONPATH": os.getcwd()}, tmp_path)
        seen |= phase
        if ours != phase:
            different.append((seed, phase, ours, {k: v for k, v in environ.items() if k not in ("PATH", "HOME")}))
    assert not different, "\n".join(map(str, different[:10]))
    assert "context" not in seen
    assert seen >= {"usual", "unix", "tcp", "tls", "proxy"}
