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
from shim.errors import CannotRun, NotThere
from shim.phase import handover, process
from shim.phase import program as programs
from tests.support.build import SHIM, Build
from tests.support.layers import GROUP, ID, Layers
from tests.support.processes import leading_a_terminal, program, wait_for

CHILD = f"""\
#!{sys.executable}
import os, signal, sys, time
def tell(number, _):
    os.write(1, (signal.Signals(number).name + "\\n").encode())  # print can't be called while it is at work
for number in signal.valid_signals() - {{signal.SIGKILL, signal.SIGSTOP, signal.SIGCHLD}}:
    try:
        signal.signal(number, tell)
    except OSError:
        pass
os.write(1, f"ready {{os.getpid()}} {{os.getppid()}}\\n".encode())
while True:
    time.sleep(0.05)
"""


@pytest.fixture
def parented(layers: Layers) -> None:
    """Where nothing is known and there is no engine, the shim is the restorer's parent at 0.11."""
    layers.write("r:1", "r:1")


@pytest.mark.parametrize("code", [0, 1, 2, 62, 64, 80, 81, 126, 127, 255])
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_phase_s_exit_status_is_ours(
    build: Build, tmp_path: pathlib.Path, parented: None, code: int, api: str
) -> None:
    phase = build.phase(exits=code)
    build.run(phase, CNB_PLATFORM_API=api).expect(code=code)


@pytest.mark.parametrize("name", ["TERM", "KILL", "SEGV", "HUP", "INT", "QUIT", "ABRT", "PIPE", "USR1"])
def test_a_phase_that_a_signal_ended_is_128_and_the_signal(
    build: Build, tmp_path: pathlib.Path, parented: None, name: str
) -> None:
    phase = build.phase(does=f"ulimit -c 0\nkill -{name} $$\nsleep 5")
    ended = build.run(phase)
    ended.expect(code=128 + signal.Signals[f"SIG{name}"], exit_code=ended.code)


@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_phase_gets_arguments_streams_and_environment_as_they_are(
    build: Build, tmp_path: pathlib.Path, parented: None, api: str
) -> None:
    phase = program(
        tmp_path / "restorer",
        f"#!{sys.executable}\nimport os, sys\nprint(sys.argv[1:], sys.stdin.read(), os.environ['MARK'])\n"
        "print('err', file=sys.stderr)\n",
    )
    arguments = ["-log-level", "debug", "-version=false", "", "a b", "--", "--daemon", "-v", "\u00e9", "*"]
    command = [*SHIM, "run", "--", str(phase), *arguments]
    env = {**build.env, "CNB_PLATFORM_API": api, "MARK": "m", "CNB_LOG_LEVEL": "error"}
    ended = subprocess.run(command, env=env, input="in", capture_output=True, text=True, check=True, timeout=60)
    assert ended.stdout == f"{arguments} in m\n"
    assert "err\n" in ended.stderr


@pytest.mark.parametrize("api", ["0.11", "0.12"])
@pytest.mark.parametrize("locale", [{}, {"LC_CTYPE": "C.UTF-8"}, {"LC_ALL": "C"}, {"LANG": "C.UTF-8"}], ids=str)
def test_the_phase_s_environment_is_the_one_that_was_given(
    layers: Layers, tmp_path: pathlib.Path, parented: None, api: str, locale: dict[str, str]
) -> None:
    """Without a locale the interpreter sets one for itself, which isn't the phase's business."""
    phase = program(tmp_path / "restorer", "#!/bin/sh\nexec tr '\\0' '\\n' < /proc/self/environ\n")
    env = {
        "PATH": os.environ["PATH"],
        "CNB_PLATFORM_API": api,
        "CNB_LAYERS_DIR": str(layers.path),
        "X": "\udcff",
        **locale,
    }
    bare = subprocess.run([phase], env=env, capture_output=True, check=True)
    command = [SHIM[0], "-c", "import sys; from shim.__main__ import main; main()", "run", "--", str(phase)]
    ended = subprocess.run(command, env=env, capture_output=True, check=True, cwd=os.getcwd())
    assert sorted(ended.stdout.splitlines()) == sorted(bare.stdout.splitlines())


@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_the_phase_s_own_name_is_kept(build: Build, tmp_path: pathlib.Path, parented: None, api: str) -> None:
    """A multi-call program finds its phase by argv[0]; busybox and the lifecycle are such."""
    (tmp_path / "restorer").symlink_to("/bin/sh")
    ended = build.run(tmp_path / "restorer", "-c", "echo $0; tr '\\0' ' ' < /proc/$$/cmdline", CNB_PLATFORM_API=api)
    assert ended.out.splitlines()[1].startswith(f"{tmp_path}/restorer -c")


@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_signals_that_python_ignores_are_not_ignored_by_the_phase(
    build: Build, tmp_path: pathlib.Path, parented: None, api: str
) -> None:
    phase = build.phase(does="exec grep -E '^Sig(Ign|Blk)' /proc/self/status")
    bare = subprocess.run([phase], capture_output=True, text=True, check=True)

    def masks(text: str) -> list[int]:
        own_of_glibc = 1 << 31 | 1 << 32  # posix_spawn leaves its two ignored, for its own to set up again
        return [int(line.split()[1], 16) & ~own_of_glibc for line in text.splitlines()]

    assert masks(build.run(phase, CNB_PLATFORM_API=api).out) == masks(bare.stdout) == [0, 0]


class Running:
    """The shim with the honest child below it, which prints the signals that it gets."""

    def __init__(self, build: Build, child: pathlib.Path, job: bool = False) -> None:
        """Start it in a session of its own, or as a job of this one, which a shell with job control could continue."""
        self.shim = subprocess.Popen(
            [*SHIM, "run", "--", str(child)],
            env=build.env,
            stdout=subprocess.PIPE,
            text=True,
            start_new_session=not job,
            process_group=0 if job else None,
        )
        assert self.shim.stdout is not None
        self.lines = self.shim.stdout
        _, pid, parent = self.lines.readline().split()
        self.pid = int(pid)
        assert int(parent) == self.shim.pid

    def end(self) -> int:
        os.kill(self.pid, signal.SIGKILL)
        self.lines.close()
        return self.shim.wait(60)


@pytest.fixture
def running(build: Build, tmp_path: pathlib.Path, parented: None) -> Iterator[Running]:
    running = Running(build, program(tmp_path / "restorer", CHILD))
    yield running
    if running.shim.poll() is None:  # the test failed
        running.end()


FORWARDED = ["HUP", "INT", "QUIT", "ABRT", "USR1", "USR2", "ALRM", "TERM"]
FORWARDED += ["CONT", "VTALRM", "PROF", "WINCH", "IO", "URG", "PWR"]


def test_every_signal_reaches_the_phase_once(running: Running) -> None:
    for name in FORWARDED:
        running.shim.send_signal(signal.Signals[f"SIG{name}"])
        assert running.lines.readline().strip() == signal.Signals[f"SIG{name}"].name
    assert running.end() == 128 + 9


def state(pid: int) -> str:
    return pathlib.Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


STOPS = ["TSTP", "TTIN", "TTOU"]


@pytest.mark.parametrize("name", STOPS)
def test_a_stop_stops_the_phase_and_us_and_a_continue_wakes_both(
    build: Build, tmp_path: pathlib.Path, parented: None, name: str
) -> None:
    running = Running(build, program(tmp_path / "restorer", CHILD), job=True)
    running.shim.send_signal(signal.Signals[f"SIG{name}"])
    assert running.lines.readline() == f"SIG{name}\n"
    wait_for(lambda: state(running.shim.pid) == "T")
    running.shim.send_signal(signal.SIGCONT)
    assert running.lines.readline() == "SIGCONT\n"
    wait_for(lambda: state(running.shim.pid) == "S")
    assert running.end() == 128 + 9


@pytest.mark.parametrize("name", STOPS)
def test_a_stop_that_nobody_could_undo_stops_nothing(running: Running, name: str) -> None:
    """As for the bare phase: the kernel discards it in an orphaned process group, such as a session leader's."""
    running.shim.send_signal(signal.Signals[f"SIG{name}"])
    assert running.lines.readline() == f"SIG{name}\n"
    running.shim.send_signal(signal.SIGTERM)
    assert running.lines.readline() == "SIGTERM\n"
    wait_for(lambda: state(running.shim.pid) == "S")
    assert running.end() == 128 + 9


def on_a_terminal_with_keys(command: list[str], environ: dict[str, str], keys: tuple[bytes, ...]) -> int:
    """Run a command as the leader of a terminal's session, as `ssh -t` does; press keys, and return its exit status."""
    process, terminal = leading_a_terminal(command, environ)
    seen = b""
    while b"up" not in seen:
        seen += os.read(terminal, 1000)
    for key in keys:
        time.sleep(0.3)
        os.write(terminal, key)
    try:
        return process.wait(60)
    except subprocess.TimeoutExpired:
        for child in subprocess.run(["pgrep", "-s", str(process.pid)], capture_output=True, text=True).stdout.split():
            os.kill(int(child), signal.SIGKILL)
        process.wait()
        return -1
    finally:
        os.close(terminal)


Z, C, BACKSLASH = b"\x1a", b"\x03", b"\x1c"


def ended_by(keys: tuple[bytes, ...]) -> int:
    return signal.SIGQUIT if BACKSLASH in keys else signal.SIGINT


@pytest.mark.parametrize("keys", [(C,), (Z, C), (Z, Z, C), (Z, BACKSLASH), (BACKSLASH,)], ids=str)
@pytest.mark.parametrize("start", [(), ("sh", "-c", '"$@"; exit $?', "sh")], ids=["leader", "of a shell without jobs"])
def test_keys_without_job_control_do_what_they_do_to_the_bare_phase(
    build: Build, tmp_path: pathlib.Path, parented: None, keys: tuple[bytes, ...], start: tuple[str, ...]
) -> None:
    phase = build.phase(does="ulimit -c 0\necho up\nwhile :; do sleep 0.05; done")
    bare = on_a_terminal_with_keys([*start, str(phase)], build.env, keys)
    wrapped = on_a_terminal_with_keys([*start, *SHIM, "run", "--", str(phase)], build.env, keys)
    assert bare in (-ended_by(keys), 128 + ended_by(keys))
    assert wrapped in (-ended_by(keys), 128 + ended_by(keys))  # the first, where the shell before it dies of it too


@pytest.mark.skipif(os.getuid() != 0, reason="a namespace of processes needs root")
@pytest.mark.parametrize("keys", [(C,), (Z, C), (Z, BACKSLASH)], ids=str)
def test_keys_reach_a_phase_below_process_1(
    build: Build, tmp_path: pathlib.Path, parented: None, keys: tuple[bytes, ...]
) -> None:
    phase = build.phase(does="ulimit -c 0\necho up\nwhile :; do sleep 0.05; done")
    inside = ["unshare", "--pid", "--fork", "--kill-child", *SHIM, "run", "--", str(phase)]
    assert on_a_terminal_with_keys(inside, build.env, keys) in (-ended_by(keys), 128 + ended_by(keys))


def test_a_shell_with_job_control_stops_and_continues_it(build: Build, tmp_path: pathlib.Path, parented: None) -> None:
    """^Z, bg, fg and ^C, as a person at a terminal does it."""
    phase = build.phase(does="echo up\nwhile :; do sleep 0.05; done")
    environ = {**build.env, "PS1": "$ ", "SHIM": " ".join([*SHIM, "run", "--", str(phase)])}
    process, terminal = leading_a_terminal(["bash", "--norc", "--noprofile", "-i"], environ)
    seen = b""

    def expect(text: bytes) -> None:
        nonlocal seen
        while text not in seen:
            seen += os.read(terminal, 1000)
        seen = seen.partition(text)[2]

    os.write(terminal, b"$SHIM\n")
    expect(b"up")
    os.write(terminal, Z)
    expect(b"Stopped")
    os.write(terminal, b"bg\n")
    os.write(terminal, b"jobs\n")
    expect(b"Running")
    os.write(terminal, b"fg\n")
    time.sleep(0.3)
    os.write(terminal, C)
    time.sleep(0.3)
    os.write(terminal, b"echo status $?\n")
    expect(b"status 130")
    os.write(terminal, b"exit\n")
    process.wait()
    os.close(terminal)


@pytest.mark.parametrize("name", ["INT", "TERM", "HUP", "QUIT"])
@pytest.mark.parametrize("way", ["run", "drop-in"])
def test_a_signal_before_the_phase_runs_ends_the_shim_silently(
    build: Build, layers: Layers, tmp_path: pathlib.Path, name: str, way: str
) -> None:
    """Under `never` the daemon is asked first; this one never answers."""
    layers.write("r:1", "r:1")
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(tmp_path / "mute.sock"))
        listener.listen()
        phase = program(tmp_path / "restorer.real", "#!/bin/sh\nexit 9\n")
        text = f"#!{sys.executable}\nimport sys\nfrom shim.__main__ import main\nsys.exit(main())\n"
        command = [str(program(tmp_path / "restorer", text))] if way == "drop-in" else [*SHIM, "run", "--", str(phase)]
        environ = {
            **build.env,
            "DOCKER_HOST": f"unix://{tmp_path}/mute.sock",
            "ANALYZED_SHIM_PULL_POLICY": "never",
            "ANALYZED_SHIM_TIMEOUT": "30",
            "PYTHONPATH": os.getcwd(),
        }
        process = subprocess.Popen(command, env=environ, stderr=subprocess.PIPE, text=True, start_new_session=True)
        connection, _ = listener.accept()  # it asks
        process.send_signal(signal.Signals[f"SIG{name}"])
        _, err = process.communicate(timeout=20)
        connection.close()
    assert (process.returncode, err) == (-signal.Signals[f"SIG{name}"], "")


def test_the_terminal_s_interrupt_reaches_the_phase_once(build: Build, tmp_path: pathlib.Path, parented: None) -> None:
    child = program(tmp_path / "restorer", CHILD)
    process, terminal = leading_a_terminal([*SHIM, "run", "--", str(child)], build.env)
    seen = b""
    while not seen.endswith(b"\n"):
        seen += os.read(terminal, 1000)
    inner = int(seen.split()[1])
    for key in (b"\x03", b"\x1c"):
        os.write(terminal, key)
        time.sleep(0.5)
    os.kill(inner, signal.SIGKILL)
    code = process.wait()
    while True:
        try:
            seen += os.read(terminal, 1000)
        except OSError:
            break
    os.close(terminal)
    assert code == 128 + 9
    assert (seen.count(b"SIGINT"), seen.count(b"SIGQUIT")) == (1, 1)


@pytest.mark.parametrize("name", ["HUP", "INT", "QUIT", "TERM"])
@pytest.mark.parametrize("trap", ["-", "exit 2"])
def test_a_phase_that_a_forwarded_signal_ends_is_not_run_again(
    build: Build, tmp_path: pathlib.Path, parented: None, engine: servers.Engine, name: str, trap: str
) -> None:
    """Whether the signal ends it or the phase ends by itself then, as Go's programs do by SIGQUIT."""
    engine.tag("r:1", f"sha256:{ID}")
    text = f'#!/bin/sh\ntrap "{trap}" {name}\necho run >> "{tmp_path}/runs"\necho up\nsleep 30 & wait\n'
    command = [*SHIM, "run", "--", str(program(tmp_path / "restorer", text))]
    environ = {**build.env, "DOCKER_HOST": engine.url}
    process = subprocess.Popen(command, env=environ, stdout=subprocess.PIPE, text=True, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    number = signal.Signals[f"SIG{name}"]
    process.send_signal(number)
    assert process.wait(25) == (2 if trap == "exit 2" else 128 + number)
    with contextlib.suppress(ProcessLookupError):  # it may have ended before it began to sleep
        os.killpg(process.pid, signal.SIGKILL)
    process.stdout.close()
    assert (tmp_path / "runs").read_text() == "run\n"


def test_a_phase_that_fails_by_itself_is_run_again_there(
    build: Build, tmp_path: pathlib.Path, parented: None, engine: servers.Engine
) -> None:
    """Else the test before would test nothing; so does a signal that asks for no end."""
    engine.tag("r:1", f"sha256:{ID}")
    phase = build.phase(does=f'echo run >> "{tmp_path}/runs"\nkill -WINCH $PPID', exits=2)
    build.run(phase, DOCKER_HOST=engine.url).expect(code=2)
    assert (tmp_path / "runs").read_text() == "run\nrun\n"


def test_a_hang_up_of_the_terminal_reaches_the_phase(build: Build, tmp_path: pathlib.Path, parented: None) -> None:
    """The kernel sends it to the session's leader alone."""
    text = f'#!/bin/sh\ntrap "echo hup >> {tmp_path}/seen; exit 5" HUP\necho up\nwhile :; do sleep 0.05; done\n'
    phase = program(tmp_path / "restorer", text)
    process, terminal = leading_a_terminal([*SHIM, "run", "--", str(phase)], build.env)
    assert os.read(terminal, 1000)
    os.close(terminal)
    assert process.wait() == 5
    assert (tmp_path / "seen").read_text() == "hup\n"


def test_an_alarm_that_was_set_for_the_phase_reaches_it(build: Build, tmp_path: pathlib.Path, parented: None) -> None:
    """One that comes before the phase runs ends the shim, and tells nothing: on a busy machine it is set for later."""
    phase = build.phase(does=f"touch {tmp_path}/runs\nexec sleep 60")
    for seconds in (1, 4, 16):
        code = f"import os, signal, sys; signal.alarm({seconds}); os.execv(sys.argv[1], sys.argv[1:])"
        command = [sys.executable, "-c", code, *SHIM, "run", "--", str(phase)]
        ended = subprocess.run(command, env=build.env, check=False, timeout=50).returncode
        if (tmp_path / "runs").exists():
            break
    assert (tmp_path / "runs").exists()
    assert ended == 128 + signal.SIGALRM


@pytest.mark.parametrize("row", ["no-switch", "daemon-build", "daemon-out-of-reach", "unknown"])
@pytest.mark.parametrize("closed", [(0,), (1,), (2,), (0, 1, 2)], ids=str)
def test_a_stream_that_is_closed_stays_closed_and_nothing_else_takes_its_place(
    build: Build, layers: Layers, tmp_path: pathlib.Path, engine: servers.Engine, row: str, closed: tuple[int, ...]
) -> None:
    engine.tag("r:1", f"sha256:{ID}")
    layers.write(ID if row == "no-switch" else "r:1", None if row == "no-switch" else "r:1")
    text = (
        '#!/bin/sh\necho out; echo err >&2\nfor n in 0 1 2; do [ -e /proc/$$/fd/$n ] || c="$c $n"; done\n'
        f"echo $c > {tmp_path}/closed\n"
        f'case $1 in -group=*) cat "${{1#-group=}}" > {tmp_path}/group ;; esac\n'
    )
    options = ["--daemon"] if row.startswith("daemon") else []
    command = [*SHIM, "run", *options, "--", str(program(tmp_path / "restorer", text)), "-log-level", "debug"]
    redirected = ["sh", "-c", '"$@" ' + " ".join(f"{n}{'<' if n == 0 else '>'}&-" for n in closed), "sh", *command]
    build.unmeasured()
    environ = {**build.env, **({"DOCKER_HOST": engine.url} if row == "daemon-build" else {})}
    assert subprocess.run(redirected, env=environ, capture_output=True, check=False, timeout=60).returncode == 0
    assert (tmp_path / "closed").read_text().split() == [str(n) for n in closed]
    if row != "unknown":
        assert (tmp_path / "group").read_text().strip().endswith(GROUP.strip())
    assert layers.reference == (ID if row in ("no-switch", "daemon-build") else "r:1")


def test_an_exec_leaves_no_process_of_ours(build: Build, tmp_path: pathlib.Path, layers: Layers) -> None:
    layers.write("r:1", "r:1")
    phase = build.phase(does="echo $$ $PPID")
    process = subprocess.Popen(
        [*SHIM, "run", "--no-daemon", "--", phase], env=build.env, stdout=subprocess.PIPE, text=True
    )
    out, _ = process.communicate(timeout=30)
    assert out.split() == [str(process.pid), str(os.getpid())]


def test_orphans_are_reaped_and_do_not_end_it(build: Build, tmp_path: pathlib.Path, parented: None) -> None:
    """As process 1 the shim gets what a phase leaves behind; a subreaper stands in for process 1."""
    text = (
        "#!/bin/sh\nsh -c '(sleep 0.1; exit 3) &'\nsh -c '(exit 4) &'\nsleep 0.5\n"
        'grep -l ") Z $PPID " /proc/[0-9]*/stat 2>/dev/null && exit 9\nexit 7\n'
    )
    phase = program(tmp_path / "restorer", text)
    code = (
        "import ctypes, os, sys; ctypes.CDLL(None).prctl(36, 1, 0, 0, 0);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", code, "-m", "shim", "run", "--", str(phase)]
    assert subprocess.run(command, env=build.env, check=False, timeout=30).returncode == 7


def test_a_question_that_is_still_open_gets_no_signal_instead_of_us() -> None:
    """A thread that blocks none would be given the phase's end while we don't wait for it yet, and ignore it."""
    code = (
        "import os, time; from shim.daemon import session; from shim.phase import process;"
        "session.Inquiry(lambda: time.sleep(60));"
        "os._exit(process.run('/bin/sh', ('sh', '-c', 'exit 7'), os.environ, lambda: time.sleep(1)).code)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False, timeout=30).returncode == 7


def test_a_parent_that_ignores_sigchld_does_not_lose_the_status(
    build: Build, tmp_path: pathlib.Path, parented: None
) -> None:
    phase = build.phase(exits=7)
    code = (
        "import os, signal, sys; signal.signal(signal.SIGCHLD, signal.SIG_IGN);"
        "os.execv(sys.executable, [sys.executable, *sys.argv[1:]])"
    )
    command = [sys.executable, "-c", code, "-m", "shim", "run", "--", str(phase)]
    assert subprocess.run(command, env=build.env, check=False, timeout=30).returncode == 7


def test_a_program_is_found_by_path_or_in_path(tmp_path: pathlib.Path) -> None:
    tool = program(tmp_path / "tool", "#!/bin/sh\n")
    assert programs.find(str(tool), {}) == str(tool)
    assert programs.find("tool", {"PATH": f"/nowhere:{tmp_path}"}) == str(tool)
    for missing in ("tool", f"{tmp_path}/other"):
        with pytest.raises(NotThere):
            programs.find(missing, {"PATH": "/nowhere"})


@pytest.mark.parametrize(
    ("content", "mode", "message"),
    [
        ("#!/no/such/interpreter\n", 0o755, "its interpreter or loader was not found"),
        ("no program", 0o755, "not a program for this machine"),
        ("#!/bin/sh\n", 0o644, "Permission denied"),
    ],
)
@pytest.mark.parametrize("api", ["0.11", "0.12"])
def test_a_phase_that_can_not_be_run_is_126_and_says_why(
    build: Build, tmp_path: pathlib.Path, parented: None, content: str, mode: int, message: str, api: str
) -> None:
    (tmp_path / "restorer").write_text(content)
    (tmp_path / "restorer").chmod(mode)
    ended = build.run(tmp_path / "restorer", CNB_PLATFORM_API=api)
    ended.expect(code=126)
    assert f"{tmp_path}/restorer" in ended.err
    assert message in ended.err


def test_a_phase_that_is_not_there_is_127(build: Build, parented: None) -> None:
    ended = build.run("no-such-phase")
    ended.expect(code=127)
    assert "no-such-phase not found" in ended.err


def test_a_memory_file_can_be_read_by_what_is_started_and_costs_no_file() -> None:
    path = handover.memory_file("group.toml", b"content")
    assert path is not None
    assert subprocess.run(["cat", path], capture_output=True, check=True, close_fds=False).stdout == b"content"
    os.close(int(path.rpartition("/")[2]))


def test_an_ending_says_how() -> None:
    assert str(process.Ending(code=3, killed=False)) == "exit status 3"
    assert str(process.Ending(code=143, killed=True)) == "signal 15"


def test_running_what_can_not_be_run_restores_the_signals() -> None:
    before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
    with pytest.raises(CannotRun):
        process.run("/no/such", ("/no/such",), os.environ, lambda: None)
    assert signal.pthread_sigmask(signal.SIG_BLOCK, ()) == before
