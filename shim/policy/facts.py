"""The facts that are decided on, and the words they are made of: finitely many values, no strings from outside."""

from __future__ import annotations

from shim.record import Record, is_hex_id

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Literal

    Phase = Literal["analyzer", "restorer", "exporter", "other"]
    Api = Literal["unset", "older", "affected", "newer"]
    File = Literal["readable", "missing", "broken"]
    Kind = Literal["empty", "name", "id", "digest"]
    Build = Literal["daemon", "registry", "unknown"]
    Certainty = Literal["known", "likely", "unknown"]
    PullPolicy = Literal["never", "if-not-present", "always"]
    Daemon = Literal["unasked", "absent", "denied", "silent", "lacks", "has"]
    Run = Literal["none", "as-called", "without-lookup"]
    Status = Literal["not-run", "succeeded", "failed", "killed"]
    Resolves = Literal["unasked", "same", "other", "nowhere", "silent"]


class Facts(Record):
    """All that `decide` looks at."""

    phase: Phase
    about: bool = False
    """`-version` or help was asked for."""
    api: Api = "affected"
    """`affected` is Platform API 0.10 and 0.11."""
    named: bool = True
    """It is sure which argument is the phase; else something is only taken for the restorer."""
    group: File = "readable"
    extensions: bool = True
    """group.toml has a `[[group-extensions]]`."""
    analyzed: File = "readable"
    run_image: bool = True
    """analyzed.toml has a `[run-image]`."""
    target: bool = False
    """`run-image.target.os` is set."""
    image: bool = True
    """`run-image.image`, the name, is set: an extension switched the run image."""
    reference: Kind = "name"
    """`run-image.reference` now."""
    build: Build = "unknown"
    pull_policy: PullPolicy = "if-not-present"
    daemon: Daemon = "unasked"
    """`absent`: no socket; `denied`: no permission; `silent`: no usable answer; `lacks`, `has`: the run image."""
    pull_tried: bool = False
    """The daemon was asked to pull, whatever came of it."""
    run: Run = "none"
    """How the restorer was run last."""
    preventable: bool = True
    """The restorer can be given a group.toml without extensions."""
    status: Status = "not-run"
    """How that run ended."""
    retried: bool = False
    """That run was the second."""
    touched: bool = False
    """That run wrote analyzed.toml."""
    rewritten: bool = False
    """`run-image.reference` is not what it was before the restorer."""
    resolves: Resolves = "unasked"
    """What the daemon has under the reference, compared with its image of the name."""
    noted: bool = True
    """The analyzer's note could be written."""


def kind_of(reference: str) -> Kind:
    """Return what sort of `run-image.reference` this is: nothing, a name, an image ID or a digest reference."""
    if not reference:
        return "empty"
    if "@sha256:" in reference:
        return "digest"
    if is_hex_id(reference.removeprefix("sha256:")):
        return "id"
    return "name"
