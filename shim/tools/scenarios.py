"""What the bare restorer does to the run image, by lifecycle and build (lifecycle issue 1457).

Measured with lifecycles 0.17.7, 0.20.5 and 0.21.17. `check` says which row applies, and the page of the docs is
rendered from these rows.
"""

from __future__ import annotations

from shim.record import Record

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.policy.facts import Facts

    Version = tuple[int, ...] | None


class Scenario(Record):
    """What the bare restorer does in one situation."""

    name: str
    lifecycle: str
    """Which lifecycles, in words."""
    when: str
    holds: Callable[[Facts, Version], bool]
    restorer: str
    """What the restorer does to `run-image`."""
    daemon: str
    """How a daemon build goes on, with the exact error."""
    registry: str
    """How a registry build goes on."""
    pull: str
    """Whether a daemon build needs another pull."""
    shim: str
    """What the shim does about it, by the rows of the policy."""


def _before(version: Version, *limit: int) -> bool:
    return version is not None and version < limit


SCENARIOS: tuple[Scenario, ...] = (
    Scenario(
        name="newer API",
        lifecycle="0.17 and later",
        when="Platform API 0.12 and later",
        holds=lambda f, _: f.api == "newer",
        restorer="asks the daemon with `-daemon` and writes the image ID; without it, asks the registry",
        daemon="works",
        registry="works",
        pull="no",
        shim="nothing (nothing-to-do)",
    ),
    Scenario(
        name="older API",
        lifecycle="any",
        when="Platform API below 0.10, or unset",
        holds=lambda f, _: f.api in ("older", "unset"),
        restorer="leaves the run image alone",
        daemon="works",
        registry="works",
        pull="no",
        shim="nothing (nothing-to-do)",
    ),
    Scenario(
        name="no group",
        lifecycle="any",
        when="group.toml is not found, or can't be read",
        holds=lambda f, _: f.group != "readable",
        restorer="leaves the run image alone",
        daemon="restore fails, exit status 1: `failed to read group file`",
        registry="the same",
        pull="no",
        shim="nothing (nothing-to-do)",
    ),
    Scenario(
        name="no extension",
        lifecycle="any",
        when="no image extension in the group",
        holds=lambda f, _: not f.extensions,
        restorer="leaves the run image alone",
        daemon="works",
        registry="works",
        pull="no",
        shim="nothing (nothing-to-do)",
    ),
    Scenario(
        name="no analyzed",
        lifecycle="any",
        when="analyzed.toml is not found, can't be read, or has no `[run-image]`",
        holds=lambda f, _: f.analyzed != "readable" or not f.run_image,
        restorer="leaves the run image alone; if the file can't be read: "
        "`Not using analyzed data, usable file not found`",
        daemon="export fails",
        registry="export fails",
        pull="no",
        shim="nothing (nothing-to-do)",
    ),
    Scenario(
        name="target known",
        lifecycle="any",
        when="`run-image.target.os` is set",
        holds=lambda f, _: f.target,
        restorer="leaves the run image alone",
        daemon="works",
        registry="works",
        pull="no",
        shim="nothing (nothing-to-do)",
    ),
    Scenario(
        name="old lifecycle",
        lifecycle="0.16 and earlier",
        when="any extension",
        holds=lambda _, version: _before(version, 0, 17),
        restorer="leaves the run image alone",
        daemon="works",
        registry="works",
        pull="no",
        shim="skips the lookup all the same, which changes nothing (no-switch, daemon-build)",
    ),
    Scenario(
        name="empty reference",
        lifecycle="0.17",
        when="an extension switched the run image",
        holds=lambda f, version: _before(version, 0, 18) and f.image,
        restorer='leaves the run image alone, but the detector left `reference = ""`',
        daemon="export fails, exit status 3: `run image not found in analyzed metadata`",
        registry="export fails, exit status 3: `run image not found in analyzed metadata`",
        pull="no; it wouldn't help",
        shim="writes the ID or the name (all rows but nothing-to-do and no-switch)",
    ),
    Scenario(
        name="no switch, old lifecycle",
        lifecycle="0.17",
        when="an extension that switched nothing",
        holds=lambda _, version: _before(version, 0, 18),
        restorer="leaves the run image alone",
        daemon="works",
        registry="works",
        pull="no",
        shim="skips the lookup all the same, which changes nothing (no-switch)",
    ),
    Scenario(
        name="crash",
        lifecycle="0.18 to 0.21",
        when="an extension that switched nothing (`run-image.image` is absent), `extend` or not",
        holds=lambda f, _: not f.image,
        restorer="crashes before it writes anything; `CNB_USE_DAEMON` doesn't help",
        daemon="restore fails, exit status 2: `panic: runtime error: invalid memory address "
        "or nil pointer dereference`",
        registry="the same",
        pull="no; it wouldn't help",
        shim="skips the lookup (no-switch)",
    ),
    Scenario(
        name="rewrite",
        lifecycle="0.18 to 0.21",
        when="an extension switched the run image, `extend` or not: no platform extends a run image at 0.10 and 0.11",
        holds=lambda f, _: f.image,
        restorer="asks the **registry** for the name and writes `repo@sha256:…` for this architecture; "
        "fails with exit status 1, `failed to get run image NAME`, if the registry doesn't have it",
        daemon="multi-arch image pulled by tag, tag that moved, or another image under the tag: export fails, "
        "exit status 62: `get run image top layer SHA: image has no layers`. Only in the daemon: restore fails. "
        "Single-arch image: works",
        registry="works: the digest is right there",
        pull="yes, by the new digest, and then it is the registry's image and not the daemon's; never with the shim",
        shim="skips the lookup and writes the ID (daemon-build), keeps the name (daemon-out-of-reach), or sets the "
        "reference back (likely, repairs)",
    ),
)


def scenario_of(facts: Facts, version: Version) -> Scenario:
    """Return the first scenario that holds.

    Args:
        facts: what is known of the build.
        version: the lifecycle's version, or None where it isn't known: then the newest's.

    """
    return next(scenario for scenario in SCENARIOS if scenario.holds(facts, version))
