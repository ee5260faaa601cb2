#!/usr/bin/env python3
"""What a user feels: whole builds, bare and wrapped in turn, by any platform.

    python benchmarks/whole.py [--pairs N] [--before COMMAND] 'BARE COMMAND' 'WRAPPED COMMAND'
    python benchmarks/whole.py --delay MILLISECONDS 127.0.0.1:PORT 127.0.0.1:REGISTRY

The commands are a shell's, such as two builds by pack or Maven that differ in the builder only; the one before each
isn't timed, and brings the daemon back to where a build begins, such as with an image but not its digest. The second
form stands in front of a registry as a far one, until it is interrupted: half of the time each way, and all of it for a
connection.
"""

from __future__ import annotations

import argparse
import socket
import statistics
import subprocess
import sys
import threading
import time


def in_turn(pairs: int, before: str, bare: str, wrapped: str) -> None:
    """Build in pairs, each beginning with the other; the first pair doesn't count. Print the ratio."""
    times: dict[str, list[float]] = {bare: [], wrapped: []}
    for number in range(pairs + 1):
        for command in (bare, wrapped) if number % 2 else (wrapped, bare):
            subprocess.run(["/bin/sh", "-c", before], check=True, stdout=subprocess.DEVNULL)
            began = time.perf_counter()
            subprocess.run(["/bin/sh", "-c", command], check=True, stdout=subprocess.DEVNULL)
            if number:
                times[command].append(time.perf_counter() - began)
    each = sorted(one / other for one, other in zip(times[wrapped], times[bare], strict=True))
    print(
        f"bare {statistics.median(times[bare]):.2f} s, wrapped {statistics.median(times[wrapped]):.2f} s, "
        f"ratio {statistics.median(each):.3f} ({each[0]:.2f} to {each[-1]:.2f}), {pairs} pairs"
    )


def _pump(one: socket.socket, other: socket.socket, seconds: float, connecting: float) -> None:
    time.sleep(connecting)
    try:
        while data := one.recv(65536):
            time.sleep(seconds)
            other.sendall(data)
        other.shutdown(socket.SHUT_WR)
    except OSError:
        pass


def delay(milliseconds: float, here: str, there: str) -> None:
    """Stand in front of a registry, and hand on what comes half of the time later, each way."""
    (own, own_port), (host, port) = here.split(":"), there.split(":")
    listening = socket.create_server((own, int(own_port)))
    while True:
        client, _ = listening.accept()
        server = socket.create_connection((host, int(port)))
        for pair, connecting in (((client, server), milliseconds / 1000), ((server, client), 0)):
            threading.Thread(target=_pump, args=(*pair, milliseconds / 2000, connecting), daemon=True).start()


def main() -> int:
    """Measure, or stand in front of a registry."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--pairs", type=int, default=7)
    options.add_argument("--before", default=":", metavar="COMMAND")
    options.add_argument("--delay", type=float, metavar="MILLISECONDS")
    options.add_argument("first")
    options.add_argument("second")
    chosen = options.parse_args()
    if chosen.delay is None:
        in_turn(chosen.pairs, chosen.before, chosen.first, chosen.second)
    else:
        delay(chosen.delay, chosen.first, chosen.second)
    return 0


if __name__ == "__main__":
    sys.exit(main())
