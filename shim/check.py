"""`check`: what would happen to this build and why, and what is wrong with the set-up. It changes nothing."""

from __future__ import annotations

import os

from shim import analyzed, files, group, policy
from shim.analyzed import Analyzed
from shim.call import WRAPPED, Call
from shim.daemon import Daemon
from shim.errors import WrongUse
from shim.log import Log
from shim.settings import Settings
from shim.wrap import build_type, daemon_of

_FORESEEN = {
    "no-switch": "skips the registry lookup, which would crash the restorer",
    "registry-build": "execs the restorer as called; its digest reference is right in a registry build",
    "daemon-build": "sets run-image.reference to the image ID, and skips the registry lookup",
    "daemon-out-of-reach": "keeps the name, which the exporter resolves, and skips the registry lookup",
    "not-in-daemon": "execs the restorer as called, with a warning: the daemon doesn't have the image",
    "unknown": "runs the restorer; sets a digest reference that the daemon doesn't have back to the name",
}


def check(call: Call, chosen: Settings, lifecycle: str) -> list[str]:
    """Look at a restorer's call and a directory of phases, and return lines for a person.

    Raises WrongUse: a directory or file wasn't found, or can't be read; the Platform API isn't one.
    """
    api = call.platform_api.removeprefix("v")
    if api and not all(part.isdecimal() for part in api.split(".")):
        raise WrongUse(f"the Platform API is {call.platform_api!r}", "pass --platform-api 0.10 or 0.11")
    if not os.path.isdir(os.path.dirname(call.analyzed) or "."):
        raise WrongUse(f"{os.path.dirname(call.analyzed)} is not a directory", "pass --layers")
    found = analyzed.read(call.analyzed)
    data, _ = files.read(call.group)
    build, known_by = build_type(call, chosen, Log(call.variables, {}))
    daemon = daemon_of(call, chosen)
    names = {True: "daemon build", False: "registry build", None: "unknown"}
    yes = group.has_extensions(call.group, data)
    return [
        f"Platform API: {call.platform_api or 'not set; 0.10 and 0.11 behave the same, so one of them is assumed'}",
        f"drop-ins: {_drop_ins(lifecycle)}",
        f"build type: {names[build]}{f' (by {known_by})' if known_by else ''}",
        f"image extension: {'yes' if yes else 'no'}",
        f"run image: {found.image or 'not switched by an extension'}",
        f"reference: {found.reference or 'empty'}",
        *_foreseen(call, build, yes, found, daemon),
    ]


def _foreseen(call: Call, build: bool | None, extensions: bool, found: Analyzed, daemon: Daemon) -> list[str]:
    """Return what would be done, by the same decisions as `run`, and what to do about it."""
    if call.platform_api and not call.is_affected:
        return ["with the shim: nothing to do at this Platform API"]
    if not extensions or found.target_os:
        return ["with the shim: nothing to do, as the restorer looks nothing up"]
    row, answer = policy.restorer(bool(found.image), build, found.name, daemon.look)
    if row is policy.UNKNOWN:
        answer = daemon.look(found.name)
    facts = dict.fromkeys(("left", "reference_before", "reference_after", "known_by", "build"), "")
    facts |= {"run_image": found.name, "daemon": daemon.address, "detail": answer.detail}
    lines = [f"with the shim: {_FORESEEN[row.name]} [{row.outcome}]"]
    if answer is not policy.UNASKED:
        said = {"has": f"has {found.name} ({answer.image_id})", "silent": f"can't be asked ({answer.detail})"}
        lines.append(f"daemon: {said.get(answer.state, policy.sentence(policy.NOT_IN_DAEMON, answer, **facts))}")
    if not found.image:
        return lines
    if "@sha256:" in found.reference and found.reference != found.image and build is not False:
        row, answer = policy.exporter(found.reference, found.name, daemon.look)
        facts |= {"left": found.reference, "reference_before": found.reference, "detail": answer.detail}
        lines.append(f"at the export: {policy.sentence(row, answer, **facts)} [{row.outcome}]")
        if row is not policy.EXPORT_RESOLVES:
            lines.append("to do: wrap the exporter, or run analyzed-shim fix --daemon before it")
    elif build is None:
        lines.append("to do: wrap the analyzer too, or pass --daemon or --no-daemon")
    return lines


def _drop_ins(lifecycle: str) -> str:
    if not os.path.isdir(lifecycle):
        return f"{lifecycle} not found (pass --lifecycle)"
    there = [phase for phase in WRAPPED if os.path.lexists(os.path.join(lifecycle, f"{phase}.real"))]
    bare = [phase for phase in WRAPPED if phase not in there]
    return ", ".join(there) + (f" (not {', '.join(bare)}: wrap all three)" if bare else "") if there else "none"
