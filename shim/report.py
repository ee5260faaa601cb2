"""How a run ended: the sentence for the log, and the report as JSON, for scripts and for a person who asks why."""

from __future__ import annotations

from typing import NamedTuple

from shim import __version__, files, policy
from shim.analyzed import Analyzed
from shim.call import Call
from shim.errors import NotRepaired, WriteRefused
from shim.log import Log, plain
from shim.policy import Found, Row
from shim.settings import Settings

SCHEMA = 2  # raised if a field changes its meaning or goes; a new one doesn't raise it


class Facts(NamedTuple):
    """What the shim found and did: `run-image.reference` as the phase `left` it, and as it is `after` the shim."""

    call: Call
    build: tuple[bool | None, str]
    """Whether this is a daemon build, and what that is known by."""
    before: Analyzed | None
    left: str
    after: str
    daemon: str
    """Its address."""
    exit_code: int | None = None
    """The phase's; None if it is execed."""


def conclude(row: Row, found: Found, detail: str, facts: Facts, chosen: Settings, log: Log) -> str:
    """Write the report if one is wanted, and return what the row says; that a report can't be written is a warning.

    Raises NotRepaired: the row is an error under `--strict`.
    """
    call, before = facts.call, facts.before
    values = {
        "build": {True: "daemon", False: "registry", None: "unknown"}[facts.build[0]],
        "known_by": facts.build[1],
        "run_image": before.name if before else "",
        "reference_before": before.reference if before else "",
        "reference_after": facts.after,
        "daemon": facts.daemon,
    }
    sentence = policy.sentence(row, found, detail=detail, left=facts.left, **values)
    failed = chosen.strict and row.fails and not facts.exit_code
    code = NotRepaired.exit_code if failed else facts.exit_code
    if chosen.report:
        import json  # most of a bare interpreter start, for those who ask for a report

        texts = {"shim": __version__, "phase": call.phase, "platform_api": call.platform_api, "row": row.name}
        texts |= {"outcome": row.outcome, "sentence": sentence, **values, "image_id": found.image_id}
        report = {"schema": SCHEMA, **{name: plain(text, 2000) for name, text in texts.items() if text}}
        text = json.dumps(report | ({} if code is None else {"exit_code": code}), indent=1)
        try:
            files.replace(chosen.report.replace("{phase}", call.phase), f"{text}\n".encode())
        except WriteRefused as problem:
            log.write("warn", problem.with_tip)
    if failed:
        raise NotRepaired(f"{sentence} (leave out --strict to go on anyway) [{row.outcome}]")
    return sentence
