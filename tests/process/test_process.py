"""A transparent parent: what the phase gets, how it ends, and which signals reach it. Real processes throughout."""

from __future__ import annotations

import os
import pathlib
import re
import signal
import socket
import subprocess
import sys
import time
from typing import Any

import pytest

from tests.support.build import SHIM, Build
from tests.support.forbid import FORBID
from tests.support.launchers import drop_in
from tests.support.layers import GROUP, ID
from tests.support.processes import program, wait_for

CHILD = f"""\
#!{sys.executable}
import os, signal, sys, time
is_on_a_terminal = os.isatty(1)
def tell(number, _):
    if number == signal.SIGHUP and is_on_a_terminal:
        os._exit(5)
    os.write(1, (signal.Signals(number).name + "\\n").encode())  # print can't be called while it is at work
for number in signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}}:
    signal.signal(number, tell)
os.write(1, f"ready {{os.getpid()}} {{os.getppid()}}\\n".encode())
while True:
    time.sleep(0.05)
"""


@pytest.fixture(autouse=True)
def parented(build: Build) -> None:
    """Where nothing is known and no daemon answers, the shim is the restorer's parent at 0.11."""
    build.layers.write("r:1", "r:1")


@pytest.mark.parametrize("code", [0, 81, 255])
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_phase_s_exit_status_is_ours(build: Build, code: int, api: str) -> None:
    ended = build.run(build.phase(exits=code), CNB_PLATFORM_API=api)
    ended.expect(code=code, exit_code=code if api == "0.11" else None, err="")


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "INT", "PIPE"])
def test_a_phase_that_a_signal_ended_is_128_and_the_signal(build: Build, name: str) -> None:
    build.unmeasured()
    ended = build.run(build.phase(does=f"ulimit -c 0\nkill -{name} $$\nsleep 5"))
    ended.expect(code=128 + signal.Signals[f"SIG{name}"], exit_code=ended.code)
    assert f"failed (signal {ended.code - 128})" in ended.out


@pytest.mark.parametrize("api", ["0.11", "0.12"])
@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C.UTF-8", "LC_ALL": "C"}])
def test_the_phase_gets_words_streams_and_environment_as_they_are(build: Build, api: str, locale: Any) -> None:
    """Without a locale the interpreter sets one for itself, which isn't the phase's business."""
    phase = build.phase(does="tr '\\0' '\\n' < /proc/$$/environ | sort\nprintf '%s|' \"$@\"\ncat\necho err >&2")
    command = [str(phase), "-log-level", "warn", "-version=false", "", "a b", "--", "--daemon", "-v", "\u00e9", "*"]
    env = {"PATH": os.environ["PATH"], "CNB_PLATFORM_API": api, "CNB_LAYERS_DIR": str(build.layers.path), **locale}
    env["X"] = "\udcff"
    bare = subprocess.run(command, env=env, input=b"in", capture_output=True, check=True)
    assert all(part in bare.stdout for part in (b"X=\xff\n", b"||a b|", b"|*|in")) and bare.stderr == b"err\n"
    ended = subprocess.run([*SHIM, "run", "--", *command], env=env, input=b"in", capture_output=True, check=True)
    assert (ended.stdout, ended.stderr) == (bare.stdout, bare.stderr)


@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_phase_s_own_name_is_kept(build: Build, api: str) -> None:
    """A multi-call program finds its phase by argv[0]; busybox and the lifecycle are such."""
    place = build.directory / "restorer"
    place.symlink_to("/bin/sh")
    ended = build.run(place, "-c", "tr '\\0' ' ' < /proc/$$/cmdline", CNB_PLATFORM_API=api)
    assert ended.out.startswith(f"{place} -c")


def test_signals_that_python_ignores_are_not_ignored_by_the_phase_nor_blocked(unknown: Build) -> None:
    """Nor has it another parent where it is execed; only of an unknown build the shim is one at first."""
    phase = unknown.phase(does="exec grep -hsE '^(PPid|SigIgn|SigBlk)' /proc/self/status /no/such")
    bare = subprocess.run([phase], capture_output=True, text=True, check=False).stdout.splitlines()
    assert [line.split()[1].lstrip("0") for line in bare] == [str(os.getpid()), "", ""]
    for environ, runs in (({"CNB_PLATFORM_API": "0.12"}, 1), ({"ANALYZED_SHIM_DAEMON": "true"}, 1), ({}, 2)):
        lines = [line for line in unknown.run(phase, **environ).out.splitlines() if "shim" not in line]
        assert (lines[1:], lines[0] == bare[0]) == ((bare * runs)[1:], runs == 1)


@pytest.mark.parametrize("is_job", [True, False])
def test_each_signal_reaches_the_phase_once_and_a_stop_stops_a_shell_s_job(build: Build, is_job: bool) -> None:
    """In an orphaned process group it stops nothing, as the bare phase: there the kernel discards it."""
    command = [*SHIM, "run", "--", str(program(build.directory / "restorer", CHILD))]
    place: dict[str, Any] = {"process_group": 0} if is_job else {"start_new_session": True}
    shim = subprocess.Popen(command, env=build.env, stdout=subprocess.PIPE, text=True, **place)
    assert shim.stdout
    _, pid, parent = shim.stdout.readline().split()
    assert int(parent) == shim.pid
    state = pathlib.Path(f"/proc/{shim.pid}/stat")

    def comes_into(wanted: str) -> None:
        wait_for(lambda: state.read_text().rpartition(")")[2].split()[0] == wanted)

    names = ["HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "CONT", "VTALRM", "PROF", "WINCH", "IO", "URG"]
    for stop in ("PWR", "TSTP", "TTIN", "TTOU"):
        names += [stop, "CONT", "TERM"] if is_job else [stop, "TERM"]
    try:
        for name in names:
            shim.send_signal(signal.Signals[f"SIG{name}"])
            assert shim.stdout.readline() == f"SIG{name}\n"
            comes_into("T" if is_job and name in ("TSTP", "TTIN", "TTOU") else "S")
    finally:
        os.kill(int(pid), signal.SIGKILL)
    assert shim.wait(60) == 128 + 9
    shim.stdout.close()


Z, C, BACKSLASH, HANG_UP = b"\x1a", b"\x03", b"\x1c", b""


def on_a_terminal(command: list[str], environ: dict[str, str], *steps: tuple[bytes, bytes]) -> tuple[int, bytes]:
    """Run a command as the leader of a terminal's session, as `ssh -t` does, and return its exit status.

    A step is what it shows and what is typed then. What it showed up to the last one is returned, too.
    """
    ours, its = os.openpty()
    leader = subprocess.Popen(["setsid", "--ctty", *command], env=environ, stdin=its, stdout=its, stderr=its)
    os.close(its)
    seen = b""
    with open(ours, "rb+", buffering=0) as terminal:
        for shown, typed in steps:
            before = len(seen)
            while shown not in seen[before:]:
                seen += terminal.read(1000)
            time.sleep(0.3)
            terminal.write(typed) if typed else terminal.close()
        return leader.wait(60), seen


STARTS = {"leader": (), "of a shell without jobs": ("sh", "-c", '"$@"; exit $?', "sh")}
STARTS |= {} if os.getuid() else {"below process 1": ("unshare", "--pid", "--fork", "--kill-child")}


@pytest.mark.parametrize("keys", [C, Z + C, Z + BACKSLASH])
@pytest.mark.parametrize("start", STARTS)
def test_keys_without_job_control_do_what_they_do_to_the_bare_phase(build: Build, keys: bytes, start: str) -> None:
    build.unmeasured()
    phase = str(build.phase(does="ulimit -c 0\necho up\nwhile :; do sleep 0.05; done"))
    number = signal.SIGQUIT if BACKSLASH in keys else signal.SIGINT
    steps = [(b"up", keys[:1]), (b"", keys[1:])][: len(keys)]
    # The bare one ignores them as process 1. By the signal itself it ends where the shell before it dies of it too.
    for command in ([*SHIM, "run", "--", phase], [phase])[: 1 if "process 1" in start else 2]:
        assert on_a_terminal([*STARTS[start], *command], build.env, *steps)[0] in (-number, 128 + number)


def test_a_shell_with_job_control_stops_and_continues_it(build: Build) -> None:
    """^Z, bg, fg and ^C, as a person at a terminal does it."""
    phase = build.phase(does="echo up\nwhile :; do sleep 0.05; done")
    environ = {**build.env, "PS1": "$ ", "SHIM": " ".join([*SHIM, "run", "--", str(phase)])}
    steps = [(b"$ ", b"$SHIM\n"), (b"up", Z), (b"Stopped", b"bg\njobs\n"), (b"Running", b"fg\n"), (b"fg", C)]
    steps += [(b"", b"echo status $?\n"), (b"status 130", b"exit\n")]
    assert on_a_terminal(["bash", "--norc", "--noprofile", "-i"], environ, *steps)[0] == 0


def test_the_terminal_s_signals_reach_the_phase_once(build: Build) -> None:
    """Those of keys go to the whole foreground group, and a hang-up to the session's leader alone."""
    command = [*SHIM, "run", "--", str(program(build.directory / "restorer", CHILD))]
    steps = [(b"ready", C), *[(b"SIGINT", BACKSLASH), (b"SIGQUIT", C)] * 2, (b"SIGINT", HANG_UP)]
    ended, seen = on_a_terminal(command, build.env, *steps)
    assert (ended, re.findall(b"SIG[A-Z]+", seen)) == (5, [b"SIGINT", b"SIGQUIT"] * 2 + [b"SIGINT"])


BEFORE = [("INT", "run"), ("INT", "drop-in"), ("TERM", "run"), ("HUP", "drop-in")]
BEFORE += [] if os.getuid() else [("INT", "process 1"), ("TERM", "process 1")]


@pytest.mark.parametrize(("name", "way"), BEFORE)
def test_a_signal_before_the_phase_runs_ends_the_shim_silently(build: Build, name: str, way: str) -> None:
    """In a known daemon build the daemon is asked first; this one never answers."""
    real, number, place = build.phase("restorer.real", exits=9), signal.Signals[f"SIG{name}"], build.directory
    namespace = ["unshare", "-pf", "--kill-child"] if way == "process 1" else []
    command = [str(drop_in(place / "restorer"))] if way == "drop-in" else [*namespace, *SHIM, "run", "--", str(real)]
    environ = {**build.env, "DOCKER_HOST": f"unix://{place}/mute.sock", "ANALYZED_SHIM_DAEMON": "true"}
    with socket.socket(socket.AF_UNIX) as listener, (place / "said").open("w") as said:
        listener.bind(f"{place}/mute.sock")
        listener.listen()
        running = subprocess.Popen(command, env=environ, stdout=said, stderr=said, start_new_session=True)
        listener.accept()[0].close()  # it looks whether somebody is there
        connection, _ = listener.accept()
        assert connection.recv(1)  # it asks
        children = pathlib.Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text()
        os.kill(int(children or running.pid), number)
        ends = 128 + number if namespace else -number
        assert (running.wait(20), (place / "said").read_text(), build.layers.reference) == (ends, "", "r:1")
        connection.close()


@pytest.mark.parametrize(
    ("name", "trap", "forbids", "code", "runs"),
    [
        ("TERM", "-", (), 128 + 15, 1),
        *((name, "exit 2", (), 2, 1) for name in ("HUP", "INT", "QUIT", "TERM")),  # as Go's programs do by SIGQUIT
        ("WINCH", "-", (), 7, 2),
        ("TERM", "-", (*FORBID, "kill"), 7, 1),
        ("WINCH", "-", (*FORBID, "kill"), 7, 2),
    ],
)
def test_a_phase_that_fails_is_run_again_but_not_if_a_signal_asked_it_to_end(
    unknown: Build, name: str, trap: str, forbids: tuple[str, ...], code: int, runs: int
) -> None:
    """A signal that may not be forwarded, as with `--cap-drop ALL` or behind sudo, is let go: the phase goes on."""
    end, log = unknown.directory / "end", unknown.directory / "runs"
    does = f'trap "{trap}" {name}\necho run >> {log}\necho up\nfor n in $(seq 600); do [ -e {end} ] || sleep 0.05; done'
    command = [*forbids, *SHIM, "run", "--", str(unknown.phase(does=does, exits=7))]
    running = subprocess.Popen(command, env=unknown.env, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert running.stdout and running.stdout.readline() == "up\n"
    running.send_signal(signal.Signals[f"SIG{name}"])
    if code == 7:
        time.sleep(0.2)
        assert running.poll() is None
        end.touch()
    assert running.communicate(timeout=30)[0].count("\n") == runs, "the line that it failed, and another up"
    assert (running.returncode, log.read_text()) == (code, "run\n" * runs)


@pytest.mark.parametrize(
    ("row", "closed"),
    [*((row, "012") for row in ("no-switch", "daemon-out-of-reach", "unknown")), *(("daemon-build", n) for n in "012")],
)
def test_a_stream_that_is_closed_stays_closed(unknown: Build, row: str, closed: str) -> None:
    place = unknown.directory
    unknown.layers.write(ID if row == "no-switch" else "r:1", None if row == "no-switch" else "r:1")
    does = 'echo out; echo err >&2\nfor n in 0 1 2; do [ -e /proc/$$/fd/$n ] || c="$c $n"; done\n'
    does += f"echo $c > {place}/closed\ncat $CNB_GROUP_PATH > {place}/group </dev/null"
    options = ["--daemon"] if row.startswith("daemon") else []
    command = [*SHIM, "run", *options, "--", str(unknown.phase(does=does)), "-log-level", "debug"]
    redirected = ["sh", "-c", '"$@" ' + " ".join(f"{n}>&-" for n in closed), "sh", *command]
    unknown.unmeasured()
    unknown.env |= {} if row == "daemon-build" else {"DOCKER_HOST": f"unix://{place}/none"}
    reference = ID if row in ("no-switch", "daemon-build") else "r:1"
    unknown.call(*redirected).expect(code=0, row=row, reference=reference)
    assert (place / "closed").read_text().split() == list(closed)
    assert (row == "unknown") or (place / "group").read_text().strip().endswith(GROUP.strip())


@pytest.mark.parametrize("before", ["ctypes.CDLL(None).prctl(36, 1)", "signal.signal(signal.SIGCHLD, signal.SIG_IGN)"])
def test_orphans_are_reaped_and_lose_no_status(build: Build, before: str) -> None:
    """As process 1 the shim gets what a phase leaves behind; a subreaper stands in for it. Or SIGCHLD is ignored."""
    orphans = "sh -c '(sleep 0.1; exit 3) &'\nsh -c '(exit 4) &'\nsleep 0.5"
    zombies = 'grep -l ") Z $PPID " /proc/[0-9]*/stat 2>/dev/null && exit 9'
    code = f"import ctypes, os, signal, sys; {before}; os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    command = (sys.executable, "-c", code, *SHIM[1:], "run", "--")
    build.call(*command, str(build.phase(does=f"{orphans}\n{zombies}", exits=7))).expect(code=7)


CANNOT = {"#!/no/such\n": "can't be run: its interpreter or loader was not found", "": "not found"}
CANNOT |= {"no program": "can't be run: not for this machine", "#!/bin/sh\n": "can't be run: Permission denied"}


@pytest.mark.parametrize("content", CANNOT)
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_a_phase_that_can_not_be_run_is_126_or_127_and_says_why(build: Build, content: str, api: str) -> None:
    path = build.directory / "restorer"
    if content:
        program(path, content).chmod(0o644 if content == "#!/bin/sh\n" else 0o755)
    ended = build.run(path, CNB_PLATFORM_API=api).expect(code=126 if content else 127)
    assert (ended.out.count("ERROR"), f"{path} {CANNOT[content]}" in ended.out) == (1, True)


DENIED = ["clone3", "clone", "clone,clone3", "faccessat2", "wait4", "wait4,waitid", "rt_sigprocmask", "rt_sigtimedwait"]


@pytest.mark.parametrize(
    ("call", "code"), [*((call, 7) for call in DENIED), ("clone", 0), ("wait4", 0), ("rt_sigtimedwait", 0)]
)
def test_a_denied_system_call_fails_no_build_and_runs_no_phase_twice(unknown: Build, call: str, code: int) -> None:
    """A shim that starts no child, or can't wait for it, may fail to say how it ended, but starts none beside it."""
    does = f"echo ${{CNB_GROUP_PATH:+again}} >> {unknown.directory}/runs\n[ $CNB_GROUP_PATH ] && exit 3"
    ended = unknown.call(*FORBID, call, *SHIM, "run", "--", str(unknown.phase(does=does, exits=code)))
    again = code == 7 and not {"clone", "wait4", "rt_sigtimedwait", "rt_sigprocmask"} & set(call.split(","))
    assert (unknown.directory / "runs").read_text() == ("\nagain\n" if again else "\n"), ended.out
    if "wait4" not in call:
        ended.expect(code=3 if again else code)
    execed = bool({"clone", "rt_sigprocmask"} & set(call.split(",")))
    assert ("no process can be started (Operation not permitted)" in ended.out) is execed
    assert ("exit_code" in ended.report or again, "internal error" in ended.out) == (not execed, False)
