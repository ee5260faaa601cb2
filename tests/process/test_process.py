"""A transparent parent: what the phase gets, how it ends, and which signals reach it. Real processes throughout."""

from __future__ import annotations

import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator

import pytest

from shim.demo import servers
from tests.support.build import SHIM, Build
from tests.support.forbid import FORBID
from tests.support.launchers import drop_in
from tests.support.layers import GROUP, ID, Layers
from tests.support.processes import leading_a_terminal, program, wait_for

CHILD = f"""\
#!{sys.executable}
import os, signal, sys, time
def tell(number, _):
    os.write(1, (signal.Signals(number).name + "\\n").encode())  # print can't be called while it is at work
for number in signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}}:
    signal.signal(number, tell)
os.write(1, f"ready {{os.getpid()}} {{os.getppid()}}\\n".encode())
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def parented(layers: Layers) -> None:
    """Where nothing is known and no daemon answers, the shim is the restorer's parent at 0.11."""
    layers.write("r:1", "r:1")


@pytest.mark.parametrize("code", [0, 2, 81, 126, 255])
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_phase_s_exit_status_is_ours(build: Build, parented: None, code: int, api: str) -> None:
    ended = build.run(build.phase(exits=code), CNB_PLATFORM_API=api)
    ended.expect(code=code, exit_code=code if api == "0.11" else None, err="")


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "INT", "PIPE"])
def test_a_phase_that_a_signal_ended_is_128_and_the_signal(build: Build, parented: None, name: str) -> None:
    ended = build.run(build.phase(does=f"ulimit -c 0\nkill -{name} $$\nsleep 5"))
    ended.expect(code=128 + signal.Signals[f"SIG{name}"], exit_code=ended.code)
    assert f"failed (signal {ended.code - 128})" in ended.out


@pytest.mark.parametrize(
    ("api", "locale"), [("0.11", {}), ("0.12", {}), ("0.11", {"LC_CTYPE": "C.UTF-8"}), ("0.12", {"LC_ALL": "C"})]
)
def test_the_phase_gets_arguments_streams_and_environment_as_they_are(
    build: Build, layers: Layers, parented: None, api: str, locale: dict[str, str]
) -> None:
    """Without a locale the interpreter sets one for itself, which isn't the phase's business."""
    phase = build.phase(does="tr '\\0' '\\n' < /proc/$$/environ | sort\nprintf '%s|' \"$@\"\ncat\necho err >&2")
    command = [str(phase), "-log-level", "warn", "-version=false", "", "a b", "--", "--daemon", "-v", "\u00e9", "*"]
    env = {"PATH": os.environ["PATH"], "CNB_PLATFORM_API": api, "CNB_LAYERS_DIR": str(layers.path), "X": "\udcff"}
    env |= locale
    bare = subprocess.run(command, env=env, input=b"in", capture_output=True, check=True)
    assert all(part in bare.stdout for part in (b"X=\xff\n", b"||a b|", b"|*|in")) and bare.stderr == b"err\n"
    ended = subprocess.run([*SHIM, "run", "--", *command], env=env, input=b"in", capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (bare.stdout, bare.stderr)


@pytest.mark.parametrize("way", ["run", "link to a drop-in"])
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_phase_s_own_name_is_kept(build: Build, tmp_path: pathlib.Path, parented: None, api: str, way: str) -> None:
    """A multi-call program finds its phase by argv[0], a drop-in's own; busybox and the lifecycle are such."""
    (tmp_path / ("restorer" if way == "run" else "restorer.real")).symlink_to("/bin/sh")
    place = tmp_path / "restorer" if way == "run" else drop_in(tmp_path / "restorer")
    (tmp_path / "x").symlink_to(place)
    command = [*SHIM, "run", "--", str(place)] if way == "run" else [str(tmp_path / "x")]
    ended = build.call(*command, "-c", "tr '\\0' ' ' < /proc/$$/cmdline", CNB_PLATFORM_API=api)
    assert ended.out.startswith(f"{place} -c")


def test_signals_that_python_ignores_are_not_ignored_by_the_phase_nor_blocked(
    build: Build, parented: None, engine: servers.Engine
) -> None:
    engine.tag("r:1", f"sha256:{ID}")
    phase = build.phase(does="exec grep -hsE '^Sig(Ign|Blk)' /proc/self/status /no/such")  # a shell blocks none
    bare = subprocess.run([phase], capture_output=True, text=True, check=False).stdout.splitlines()
    assert [int(line.split()[1], 16) for line in bare] == [0, 0]
    for api, times in (("0.11", 2), ("0.12", 1)):
        ended = build.run(phase, CNB_PLATFORM_API=api, DOCKER_HOST=engine.url)
        assert [line for line in ended.out.splitlines() if line.startswith("Sig")] == bare * times


class Running:
    """The shim in a session of its own, or as a job of this one, which a shell could continue, and CHILD below it."""

    def __init__(self, build: Build, job: bool) -> None:
        command = [*SHIM, "run", "--", str(program(build.directory / "restorer", CHILD))]
        self.is_job, group = job, 0 if job else None
        self.shim = subprocess.Popen(
            command, env=build.env, stdout=subprocess.PIPE, text=True, start_new_session=not job, process_group=group
        )
        assert self.shim.stdout is not None
        self.lines = self.shim.stdout
        _, pid, parent = self.lines.readline().split()
        self.pid = int(pid)
        assert int(parent) == self.shim.pid

    def passes(self, *names: str) -> None:
        for name in names:
            self.shim.send_signal(signal.Signals[f"SIG{name}"])
            assert self.lines.readline() == f"SIG{name}\n"

    def comes_into(self, state: str) -> None:
        path = pathlib.Path(f"/proc/{self.shim.pid}/stat")
        wait_for(lambda: path.read_text().rpartition(")")[2].split()[0] == state)


@pytest.fixture
def running(request: pytest.FixtureRequest, build: Build, parented: None) -> Iterator[Running]:
    running = Running(build, getattr(request, "param", False))
    yield running
    os.kill(running.pid, signal.SIGKILL)
    running.lines.close()
    assert running.shim.wait(60) == 128 + 9


def test_every_signal_reaches_the_phase_once(running: Running) -> None:
    running.passes("HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "TERM")
    running.passes("CONT", "VTALRM", "PROF", "WINCH", "IO", "URG", "PWR")


@pytest.mark.parametrize("running", [True, False], indirect=True)
def test_a_stop_stops_the_phase_and_us_if_somebody_could_continue_us(running: Running) -> None:
    """Else it stops nothing, as the bare phase: the kernel discards it in an orphaned process group."""
    for name in ("TSTP", "TTIN", "TTOU"):
        running.passes(name)
        if running.is_job:
            running.comes_into("T")
            running.passes("CONT")
        running.passes("TERM")
        running.comes_into("S")


def read_until(terminal: int, text: bytes) -> bytes:
    seen = b""
    while text not in seen:
        seen += os.read(terminal, 1000)
    return seen


def on_a_terminal_with_keys(command: list[str], environ: dict[str, str], keys: tuple[bytes, ...]) -> int:
    """Run a command as the leader of a terminal's session, as `ssh -t` does; press keys, and return its exit status."""
    leader, terminal = leading_a_terminal(command, environ)
    read_until(terminal, b"up")
    for key in keys:
        time.sleep(0.3)
        os.write(terminal, key)
    try:
        return leader.wait(60)
    finally:
        os.close(terminal)  # which hangs up what is still there


Z, C, BACKSLASH = b"\x1a", b"\x03", b"\x1c"
STARTS = {"leader": (), "of a shell without jobs": ("sh", "-c", '"$@"; exit $?', "sh")}
STARTS |= {} if os.getuid() else {"below process 1": ("unshare", "--pid", "--fork", "--kill-child")}


@pytest.mark.parametrize("keys", [(C,), (Z, C), (Z, BACKSLASH)])
@pytest.mark.parametrize("start", STARTS)
def test_keys_without_job_control_do_what_they_do_to_the_bare_phase(
    build: Build, parented: None, keys: tuple[bytes, ...], start: str
) -> None:
    phase = str(build.phase(does="ulimit -c 0\necho up\nwhile :; do sleep 0.05; done"))
    number = signal.SIGQUIT if BACKSLASH in keys else signal.SIGINT
    # The bare one ignores them as process 1. By the signal itself it ends where the shell before it dies of it too.
    for command in ([*SHIM, "run", "--", phase], [phase])[: 1 if "process 1" in start else 2]:
        assert on_a_terminal_with_keys([*STARTS[start], *command], build.env, keys) in (-number, 128 + number)


def test_a_shell_with_job_control_stops_and_continues_it(build: Build, parented: None) -> None:
    """^Z, bg, fg and ^C, as a person at a terminal does it."""
    phase = build.phase(does="echo up\nwhile :; do sleep 0.05; done")
    environ = {**build.env, "PS1": "$ ", "SHIM": " ".join([*SHIM, "run", "--", str(phase)])}
    leader, terminal = leading_a_terminal(["bash", "--norc", "--noprofile", "-i"], environ)
    for typed, shown in ((b"$SHIM\n", b"up"), (Z, b"Stopped"), (b"bg\njobs\n", b"Running"), (b"fg\n", b"fg")):
        os.write(terminal, typed)
        read_until(terminal, shown)
    for typed in (C, b"echo status $?\n"):
        time.sleep(0.3)
        os.write(terminal, typed)
    read_until(terminal, b"status 130")
    os.write(terminal, b"exit\n")
    leader.wait()
    os.close(terminal)


@pytest.mark.parametrize(("name", "way"), [("INT", "run"), ("INT", "drop-in"), ("TERM", "run"), ("HUP", "drop-in")])
def test_a_signal_before_the_phase_runs_ends_the_shim_silently(
    build: Build, tmp_path: pathlib.Path, parented: None, name: str, way: str
) -> None:
    """In a known daemon build the daemon is asked first; this one never answers."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mute.sock"))
        listener.listen()
        phase = program(tmp_path / "restorer.real", "#!/bin/sh\nexit 9\n")
        command = [str(drop_in(tmp_path / "restorer"))] if way == "drop-in" else [*SHIM, "run", "--", str(phase)]
        environ = {**build.env, "DOCKER_HOST": f"unix://{tmp_path}/mute.sock", "ANALYZED_SHIM_DAEMON": "true"}
        with (tmp_path / "said").open("w") as said:
            running = subprocess.Popen(command, env=environ, stdout=said, stderr=said, start_new_session=True)
        connection, _ = listener.accept()  # it asks
        running.send_signal(signal.Signals[f"SIG{name}"])
        assert (running.wait(20), (tmp_path / "said").read_text()) == (-signal.Signals[f"SIG{name}"], "")
        connection.close()


def test_the_terminal_s_interrupt_reaches_the_phase_once(build: Build, tmp_path: pathlib.Path, parented: None) -> None:
    child = program(tmp_path / "restorer", CHILD)
    leader, terminal = leading_a_terminal([*SHIM, "run", "--", str(child)], build.env)
    inner = int(read_until(terminal, b"\n").split()[1])
    for key in (C, BACKSLASH):
        os.write(terminal, key)
        time.sleep(0.5)
    os.kill(inner, signal.SIGKILL)
    assert leader.wait() == 128 + 9
    seen = b""
    with contextlib.suppress(OSError):
        while True:
            seen += os.read(terminal, 1000)
    os.close(terminal)
    assert (seen.count(b"SIGINT"), seen.count(b"SIGQUIT")) == (1, 1)


@pytest.mark.parametrize(
    ("name", "trap"), [("TERM", "-"), *((name, "exit 2") for name in ("HUP", "INT", "QUIT", "TERM"))]
)
def test_a_phase_that_a_forwarded_signal_ends_is_not_run_again(
    build: Build, tmp_path: pathlib.Path, parented: None, engine: servers.Engine, name: str, trap: str
) -> None:
    """Whether the signal ends it or the phase ends by itself then, as Go's programs do by SIGQUIT."""
    engine.tag("r:1", f"sha256:{ID}")
    phase = build.phase(does=f'trap "{trap}" {name}\necho run >> "{tmp_path}/runs"\necho up\nsleep 30 & wait')
    command, environ = [*SHIM, "run", "--", str(phase)], {**build.env, "DOCKER_HOST": engine.url}
    running = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout and running.stdout.readline() == "up\n"
    number = signal.Signals[f"SIG{name}"]
    running.send_signal(number)
    assert running.wait(25) == (2 if trap == "exit 2" else 128 + number)
    with contextlib.suppress(ProcessLookupError):  # it may have ended before it began to sleep
        os.killpg(running.pid, signal.SIGKILL)
    running.stdout.close()
    assert (tmp_path / "runs").read_text() == "run\n"


@pytest.mark.parametrize("known", [True, False])
def test_a_phase_that_fails_by_itself_is_run_again_where_the_lookup_may_be_why(
    build: Build, tmp_path: pathlib.Path, parented: None, engine: servers.Engine, known: bool
) -> None:
    """Else the test before would test nothing; so does a signal that asks for no end."""
    engine.tag("r:1", f"sha256:{ID}")
    signals = "" if known else "kill -WINCH $PPID"
    phase = build.phase(does=f'echo run >> "{tmp_path}/runs"\necho $PPID\n{signals}', exits=44)
    ended = build.run(phase, options=["--daemon"] * known, DOCKER_HOST=engine.url).expect(code=44)
    assert (tmp_path / "runs").read_text() == "run\n" * (1 if known else 2)
    assert (ended.out.splitlines()[0 if not known else -1] == str(os.getpid())) is known, "execed"


def test_a_hang_up_of_the_terminal_reaches_the_phase(build: Build, parented: None) -> None:
    """The kernel sends it to the session's leader alone."""
    does = 'trap "exit 5" HUP\necho up\nwhile :; do sleep 0.05; done'
    leader, terminal = leading_a_terminal([*SHIM, "run", "--", str(build.phase(does=does))], build.env)
    read_until(terminal, b"up")
    os.close(terminal)
    assert leader.wait() == 5


@pytest.mark.parametrize(
    ("row", "closed"),
    [*((row, "012") for row in ("no-switch", "daemon-out-of-reach", "unknown")), *(("daemon-build", n) for n in "012")],
)
def test_a_stream_that_is_closed_stays_closed_and_nothing_else_takes_its_place(
    build: Build, layers: Layers, tmp_path: pathlib.Path, engine: servers.Engine, row: str, closed: str
) -> None:
    engine.tag("r:1", f"sha256:{ID}")
    layers.write(ID if row == "no-switch" else "r:1", None if row == "no-switch" else "r:1")
    does = 'echo out; echo err >&2\nfor n in 0 1 2; do [ -e /proc/$$/fd/$n ] || c="$c $n"; done\n'
    does += f"echo $c > {tmp_path}/closed\ncat $CNB_GROUP_PATH > {tmp_path}/group </dev/null"
    options = ["--daemon"] if row.startswith("daemon") else []
    command = [*SHIM, "run", *options, "--", str(build.phase(does=does)), "-log-level", "debug"]
    redirected = ["sh", "-c", '"$@" ' + " ".join(f"{n}>&-" for n in closed), "sh", *command]
    build.unmeasured()
    build.env |= {"DOCKER_HOST": engine.url} if row == "daemon-build" else {}
    reference = ID if row in ("no-switch", "daemon-build") else "r:1"
    build.call(*redirected).expect(code=0, row=row, reference=reference)
    assert (tmp_path / "closed").read_text().split() == list(closed)
    assert (row == "unknown") or (tmp_path / "group").read_text().strip().endswith(GROUP.strip())


@pytest.mark.parametrize("before", ["ctypes.CDLL(None).prctl(36, 1)", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_orphans_are_reaped_and_lose_no_status(build: Build, parented: None, before: str) -> None:
    """As process 1 the shim gets what a phase leaves behind; a subreaper stands in for it. Or SIGCHLD is ignored."""
    orphans = "sh -c '(sleep 0.1; exit 3) &'\nsh -c '(exit 4) &'\nsleep 0.5"
    zombies = 'grep -l ") Z $PPID " /proc/[0-9]*/stat 2>/dev/null && exit 9'
    code = f"import ctypes, os, signal, sys; {before}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = (sys.executable, "-c", code, *SHIM[1:], "run", "--")
    build.call(*command, str(build.phase(does=f"{orphans}\n{zombies}", exits=7))).expect(code=7)


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("#!/no/such/interpreter\n", 0o755, "can't be run: its interpreter or loader was not found"),
        ("no program", 0o755, "can't be run: not for this machine"),
        ("#!/bin/sh\n", 0o644, "can't be run: Permission denied"),
        ("", 0, "not found"),
    ],
)
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_a_phase_that_can_not_be_run_is_126_or_127_and_says_why(
    build: Build, tmp_path: pathlib.Path, parented: None, content: str, mode: int, message: str, api: str
) -> None:
    path = tmp_path / "restorer"
    if content:
        path.write_text(content)
        path.chmod(mode)
    ended = build.run(path, CNB_PLATFORM_API=api).expect(code=126 if content else 127)
    assert (ended.out.count("ERROR"), f"{path} {message}" in ended.out) == (1, True)


DENIED = ["clone3", "clone", "clone,clone3", "faccessat2", "wait4", "wait4,waitid", "rt_sigprocmask", "rt_sigtimedwait"]


@pytest.mark.parametrize(
    ("call", "code"), [*((call, 7) for call in DENIED), ("clone", 0), ("wait4", 0), ("rt_sigtimedwait", 0)]
)
def test_a_system_call_that_is_denied_fails_no_build_and_runs_no_phase_twice(
    build: Build, tmp_path: pathlib.Path, parented: None, engine: servers.Engine, call: str, code: int
) -> None:
    """A shim that starts no child, or can't wait for it, may fail to say how it ended, but starts none beside it."""
    engine.tag("r:1", f"sha256:{ID}")
    does = f"echo ${{CNB_GROUP_PATH:+again}} >> {tmp_path}/runs\n[ $CNB_GROUP_PATH ] && exit 3"
    command = (*SHIM, "run", "--", str(build.phase(does=does, exits=code)))
    ended = build.call(*FORBID, call, *command, DOCKER_HOST=engine.url)
    again = code == 7 and not {"clone", "wait4", "rt_sigtimedwait", "rt_sigprocmask"} & set(call.split(","))
    assert (tmp_path / "runs").read_text() == ("\nagain\n" if again else "\n"), ended.out
    if "wait4" not in call:
        ended.expect(code=3 if again else code)
    execed = bool({"clone", "rt_sigprocmask"} & set(call.split(",")))
    assert ("no process can be started (Operation not permitted)" in ended.out) is execed
    assert ("exit_code" in ended.report or again, "internal error" in ended.out) == (not execed, False)


@pytest.mark.parametrize("name", ["TERM", "WINCH"])
def test_a_signal_that_may_not_be_forwarded_is_let_go(
    build: Build, parented: None, engine: servers.Engine, name: str
) -> None:
    """As with `--cap-drop ALL`, or behind sudo: the phase goes on, and what it does then is as without the signal."""
    engine.tag("r:1", f"sha256:{ID}")
    build.env["DOCKER_HOST"] = engine.url
    place, runs = build.directory, 2 if name == "WINCH" else 1
    does = f"echo run >> {place}/runs\necho up\nwhile [ ! -e {place}/end ]; do sleep 0.05; done"
    command = [*FORBID, "kill", *SHIM, "run", "--", str(build.phase(does=does, exits=7))]
    running = subprocess.Popen(command, env=build.env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout and running.stdout.readline() == "up\n"
    running.send_signal(signal.Signals[f"SIG{name}"])
    time.sleep(0.2)
    assert running.poll() is None
    (place / "end").touch()
    assert running.communicate(timeout=30)[0].count("\n") == runs, "the line that it failed, and another up"
    assert (running.returncode, (place / "runs").read_text()) == (7, "run\n" * runs)
