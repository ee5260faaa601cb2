"""Whether there is nothing to do for a call, by what is cheap to read: so most builds import nothing else."""

from __future__ import annotations

from shim import files, group
from shim.call import WRAPPED, Call
from shim.errors import FileProblem


def nothing_to_do(call: Call) -> tuple[str, str]:
    """Return the outcome and the reason if the phase is just to be execed; else two empty strings."""
    if call.phase not in WRAPPED:
        return "passed-through", f"{call.phase or call.argv[0]} is not a phase that is wrapped"
    if not call.is_affected:
        return "passed-through", f"at Platform API {call.platform_api or '(unset)'} there is nothing to do"
    if call.asks_for_help:
        return "passed-through", "only the version or help is asked for"
    try:
        if call.phase == "restorer" and not group.may_have_extensions(files.read(call.group)[0]):
            return "passed-through", f"no image extension in {call.group}"
        if call.phase == "exporter" and not call.is_for_daemon:
            return "not-a-daemon-build", "the exporter is called without -daemon"
        if call.phase == "exporter" and not _may_have_image(files.read(call.analyzed)[0]):
            return "passed-through", f"no extension switched the run image in {call.analyzed}"
    except FileProblem:  # it is read again, and said
        pass
    return "", ""


def _may_have_image(analyzed: bytes) -> bool:
    """Return whether an analyzed.toml may have `run-image.image`, by its bytes alone."""
    return any(
        line.partition(b"=")[0].strip(b" \t\"'").endswith(b"image") for line in analyzed.split(b"\n") if b"=" in line
    )
