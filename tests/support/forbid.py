"""Run a program with system calls forbidden, as a container's seccomp profile does.

python -m tests.support.forbid CALL[,CALL]... PROGRAM [ARGUMENT]...
"""

from __future__ import annotations

import ctypes
import errno
import os
import platform
import struct
import sys

NUMBERS = {
    "clone": {"x86_64": 56, "aarch64": 220},  # what fork(3) of glibc uses
    "clone3": {"x86_64": 435, "aarch64": 435},  # what posix_spawn(3) uses first
    "faccessat2": {"x86_64": 439, "aarch64": 439},
    "fchmod": {"x86_64": 91, "aarch64": 52},
    "fchown": {"x86_64": 93, "aarch64": 55},
    "fremovexattr": {"x86_64": 199, "aarch64": 16},
    "fsetxattr": {"x86_64": 190, "aarch64": 7},
    "kill": {"x86_64": 62, "aarch64": 129},
    "renameat": {"x86_64": 264, "aarch64": 38},
    "rt_sigprocmask": {"x86_64": 14, "aarch64": 135},
    "rt_sigtimedwait": {"x86_64": 128, "aarch64": 137},  # what sigwaitinfo(3) uses
    "setgroups": {"x86_64": 116, "aarch64": 159},
    "setresgid": {"x86_64": 119, "aarch64": 149},
    "setresuid": {"x86_64": 117, "aarch64": 147},
    "wait4": {"x86_64": 61, "aarch64": 260},  # what waitpid(3) uses
    "waitid": {"x86_64": 247, "aarch64": 95},
}
FORBID = (sys.executable, "-m", "tests.support.forbid")
_NO_NEW_PRIVS, _SECCOMP, _FILTER = 38, 22, 2
_LOAD, _JUMP_IF_EQUAL, _RETURN = 0x20, 0x15, 0x06
_ALLOW, _ERRNO = 0x7FFF0000, 0x00050000


def forbid(number: int) -> None:
    """Have a system call fail with EPERM in this process and in all that it starts."""
    refused, allowed = (_RETURN, 0, 0, _ERRNO | errno.EPERM), (_RETURN, 0, 0, _ALLOW)
    instructions = ((_LOAD, 0, 0, 0), (_JUMP_IF_EQUAL, 0, 1, number), refused, allowed)
    code = ctypes.create_string_buffer(b"".join(struct.pack("HBBI", *one) for one in instructions))  # sock_filter
    program = struct.pack("HP", len(instructions), ctypes.addressof(code))  # struct sock_fprog of seccomp(2)
    libc = ctypes.CDLL(None, use_errno=True)
    for arguments in ((_NO_NEW_PRIVS, 1, 0, 0, 0), (_SECCOMP, _FILTER, program, 0, 0)):
        if libc.prctl(*arguments):
            raise OSError(ctypes.get_errno(), "prctl")


if __name__ == "__main__":
    for name in sys.argv[1].split(","):
        forbid(NUMBERS[name][platform.machine()])
    os.execvp(sys.argv[2], sys.argv[2:])
