"""Deciding what to do, without I/O, clock or environment. The tables of the docs are checked against this."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Literal, NamedTuple

from shim.log import FALSE, TRUE

_PART = r"[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"  # https://pkg.go.dev/github.com/distribution/reference
_HOST = r"(?:[A-Za-z0-9][A-Za-z0-9.-]*|\[[0-9a-fA-F:]+\])(?::[0-9]+)?"
_TAG, _DIGEST = r"(?::[A-Za-z0-9_][A-Za-z0-9_.-]{0,127})?", r"(?:@sha256:[0-9a-f]{64})?"
_REFERENCE = re.compile(rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*{_TAG}{_DIGEST}")


class Found(NamedTuple):
    """What the daemon answered for a reference."""

    state: Literal["has", "lacks", "silent"]
    """It has the image for this platform, it doesn't, or it can't be asked."""
    image_id: str = ""
    """64 hex digits."""
    detail: str = ""
    """Why it can't be asked."""
    own: str = ""
    """This machine's platform, such as linux/amd64, if the daemon has the image for another one only."""
    other: str = ""
    """That other one."""


Look = Callable[[str], Found]
"""Asks the daemon for an image by a reference."""


class Row(NamedTuple):
    """One row of a table: what is done, and the sentence that says so."""

    name: str
    outcome: str
    says: str
    level: str = "info"
    lookup: bool = True
    """The phase is execed as called; else it is a restorer, and does no registry lookup."""
    child: bool = False
    """The restorer runs as a child process, and `after_restorer` decides again."""
    write: Literal["", "id", "name"] = ""
    """What `run-image.reference` becomes."""
    fails: bool = False
    """Under `--strict` this is an error."""


UNASKED = Found("silent")
_PULL = "run docker pull {option}{run_image} before the export"
_SKIPPED = "skipped the registry lookup"
_FAILS = "the export fails with `image has no layers`"

NOTHING_TO_DO = Row("nothing-to-do", "passed-through", "{detail}", "debug")
UNREADABLE = NOTHING_TO_DO._replace(level="warn")
NOT_WRITTEN = Row("not-written", "unrepaired", "{detail}", "warn", fails=True)

NOTED = Row("analyzer", "noted", "noted for the restorer that this is a {build} build", "debug")
NOT_NOTED = Row("analyzer", "daemon-unknown", "{detail}; the restorer won't know the build type (pass it --daemon)")

NO_SWITCH_SAYS = f"no extension switched the run image; {_SKIPPED}, which would crash the restorer"
NO_SWITCH = Row("no-switch", "no-lookup", NO_SWITCH_SAYS, lookup=False)
REGISTRY_BUILD = Row("registry-build", "not-a-daemon-build", "not a daemon build (by {known_by})", "debug")
PREVENTED_SAYS = f"set run-image.reference to {{short_id}}, the daemon's image for {{run_image}}; {_SKIPPED}"
DAEMON_BUILD = Row("daemon-build", "prevented", PREVENTED_SAYS, lookup=False, write="id")
KEPT_SAYS = "keeping run-image.reference as {run_image}, which the exporter resolves in the daemon ({detail})"
DAEMON_OUT_OF_REACH = Row("daemon-out-of-reach", "kept-name", KEPT_SAYS, lookup=False)
LACKS_SAYS = f"the daemon at {{daemon}} does not have {{run_image}}{{platform}}; {_PULL}"
NOT_IN_DAEMON = Row("not-in-daemon", "not-in-daemon", LACKS_SAYS, "warn")

UNKNOWN = Row("unknown", "unchanged", "the restorer left run-image.reference as it was", "debug", child=True)
FAILED = UNKNOWN._replace(says="the restorer failed ({detail}); the shim changed nothing", level="info")
RETRY_SAYS = "the restorer failed ({detail}), but the daemon has {run_image}; retrying without the registry lookup"
RETRY = Row("unknown", "retried", RETRY_SAYS, "warn", lookup=False)
RESOLVES = Row("unknown", "resolves", "the daemon has {left}", "debug")
PUT_BACK_SAYS = "the daemon does not have {left}; set run-image.reference back to {run_image}, which it has"
PUT_BACK = Row("unknown", "reverted", PUT_BACK_SAYS, write="name")
_TELL = "if this build exports to a daemon, pass --daemon or set ANALYZED_SHIM_DAEMON=true"
DAEMON_UNKNOWN_SAYS = f"the restorer changed run-image.reference to {{left}}; {_TELL}"
DAEMON_UNKNOWN = Row("unknown", "daemon-unknown", DAEMON_UNKNOWN_SAYS)

EXPORT_RESOLVES = RESOLVES._replace(name="exporter")
BY_ID_SAYS = "the daemon does not have {left}; set run-image.reference to {short_id}, its image for {run_image}"
EXPORT_BY_ID = Row("exporter", "reverted", BY_ID_SAYS, write="id")
FILLED_BY_ID_SAYS = "run-image.reference was empty; set it to {short_id}, the daemon's image for {run_image}"
EXPORT_FILLED = Row("exporter", "filled", FILLED_BY_ID_SAYS, write="id")
EXPORT_LACKS_SAYS = f"the daemon at {{daemon}} does not have {{wanted}}, so {_FAILS}; {_PULL}"
EXPORT_LACKS = Row("exporter", "not-in-daemon", EXPORT_LACKS_SAYS, "warn", fails=True)
OTHER_SAYS = f"the daemon at {{daemon}} has {{run_image}} only for {{other}}, on which the app would stand; {_PULL}"
EXPORT_OTHER_PLATFORM = Row("exporter", "not-in-daemon", OTHER_SAYS, "warn", fails=True)
UNASKED_SAYS = f"the daemon can't be asked for {{wanted}} ({{detail}}); if {_FAILS}, {_PULL}"
EXPORT_UNASKED = Row("exporter", "daemon-unknown", UNASKED_SAYS, "warn", fails=True)
FILLED_SAYS = "run-image.reference was empty; set it to {run_image}, which the exporter resolves"


def build_type(option: bool | None, note: bool | None, variables: Mapping[str, str]) -> tuple[bool | None, str]:
    """Return whether this is a daemon build, and what that is known by; None: nothing indicates it.

    The option, else the wrapped analyzer's note, else the phase's `CNB_USE_DAEMON` and `CNB_USE_LAYOUT`.
    """
    if option is not None:
        return option, "option"
    if note is not None:
        return note, "note"
    if (text := variables.get("CNB_USE_DAEMON")) in TRUE + FALSE:
        return text in TRUE, "CNB_USE_DAEMON"
    return (False, "CNB_USE_LAYOUT") if variables.get("CNB_USE_LAYOUT") in TRUE else (None, "")


def restorer(switched: bool, daemon: bool | None, name: str, look: Look) -> tuple[Row, Found]:
    """Return what a wrapped restorer does, and what the daemon answered, if it was asked.

    By whether an extension `switched` the run image, and whether this is a `daemon` build (None: unknown).
    """
    if not switched:
        return NO_SWITCH, UNASKED
    if daemon is None:
        return UNKNOWN, UNASKED
    if not daemon:
        return REGISTRY_BUILD, UNASKED
    found = look(name)
    return {"has": DAEMON_BUILD, "lacks": NOT_IN_DAEMON, "silent": DAEMON_OUT_OF_REACH}[found.state], found


def after_restorer(failed: bool, before: str, after: str, name: str, look: Look) -> tuple[Row, Found]:
    """Return what is done after a restorer of an unknown build, which may have failed before it wrote analyzed.toml.

    By `run-image.reference` before and after it.
    """
    if failed:
        found = look(name)
        return (RETRY if found.state == "has" else FAILED), found
    if after == before or "@sha256:" not in after:
        return UNKNOWN, UNASKED
    found = look(after)
    if found.state == "has":
        return RESOLVES, found
    if found.state == "lacks" and (by_name := look(name)).state == "has":
        return PUT_BACK, by_name
    return DAEMON_UNKNOWN, found


def exporter(reference: str, name: str, look: Look) -> tuple[Row, Found]:
    """Return what a wrapped exporter of a daemon build does, or `fix`, by `run-image.reference`."""
    found = look(reference) if reference else Found("lacks")
    if found.state == "has":
        return EXPORT_RESOLVES, found
    if found.state == "lacks" and name != reference:
        found = look(name)
    if found.state == "lacks":
        return (EXPORT_OTHER_PLATFORM if found.other else EXPORT_LACKS), found
    by_id = EXPORT_BY_ID if reference else EXPORT_FILLED
    return (by_id if found.state == "has" else EXPORT_UNASKED), found


def filled(row: Row, reference: str, image: str) -> Row:
    """Return the row that also gives an empty reference the name; lifecycle 0.17 leaves it empty."""
    if reference or not image or row.write:
        return row
    if row.outcome not in ("not-a-daemon-build", "unchanged"):
        return row._replace(write="name")
    return row._replace(write="name", outcome="filled", says=FILLED_SAYS, level="info")


def sentence(row: Row, found: Found, **words: str) -> str:
    """Return what a row says, filled in with the words that the report has, `detail` and `left` (`report.Facts`)."""
    return row.says.format(
        **words,
        wanted=" or ".join(dict.fromkeys(filter(None, (words["left"], words["run_image"])))),
        short_id=found.image_id[:12],
        other=found.other,
        platform=f" for {found.own}{f', only for {found.other}' if found.other else ''}" if found.own else "",
        option=f"--platform {found.own} " if found.own else "",
    )


def is_reference(text: str) -> bool:
    """Return whether the daemon can be asked for this: a name, a digest reference or an ID, and no other path."""
    return len(text) < 512 and _REFERENCE.fullmatch(text) is not None
