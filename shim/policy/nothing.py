"""The rows of builds that the shim leaves alone, shared by the tables."""

from __future__ import annotations

from shim.policy.row import End, always, section

AS_CALLED = "execs the phase as called"

CALL = section(
    "nothing-to-do",
    always,
    End(
        name="version or help",
        when="the version or help is asked for",
        holds=lambda f: f.about,
        does=AS_CALLED,
        outcome="passed-through",
        says="the {phase} was asked for its version or help",
        level="debug",
        finish="exec",
    ),
    End(
        name="Platform API",
        when="the Platform API is unset, below 0.10, or 0.12 and later",
        holds=lambda f: f.api != "affected",
        does=AS_CALLED,
        outcome="passed-through",
        says="nothing to do at Platform API {api}",
        level="debug",
        finish="exec",
    ),
)
"""For every phase, before any file is looked at."""

GROUP = section(
    "nothing-to-do",
    lambda f: f.run == "none",
    End(
        name="no group.toml",
        when="group.toml is not found",
        holds=lambda f: f.group == "missing",
        does=AS_CALLED,
        outcome="passed-through",
        says="{detail}",
        level="debug",
        finish="exec",
    ),
    End(
        name="bad group.toml",
        when="group.toml can't be read",
        holds=lambda f: f.group == "broken",
        does=f"{AS_CALLED}, with a warning",
        outcome="passed-through",
        says="{detail}",
        level="warn",
        finish="exec",
    ),
    End(
        name="no extension",
        when="the group has no image extension",
        holds=lambda f: not f.extensions,
        does=AS_CALLED,
        outcome="passed-through",
        says="no image extension in {group}",
        level="debug",
        finish="exec",
    ),
)
"""For the restorer."""

ANALYZED = section(
    "nothing-to-do",
    lambda f: f.run == "none",
    End(
        name="no analyzed.toml",
        when="analyzed.toml is not found",
        holds=lambda f: f.analyzed == "missing",
        does=AS_CALLED,
        outcome="passed-through",
        says="{detail}",
        level="debug",
        finish="exec",
    ),
    End(
        name="bad analyzed.toml",
        when="analyzed.toml can't be read",
        holds=lambda f: f.analyzed == "broken",
        does=f"{AS_CALLED}, with a warning",
        outcome="passed-through",
        says="{detail}",
        level="warn",
        finish="exec",
    ),
    End(
        name="no run image",
        when="analyzed.toml has no `[run-image]`",
        holds=lambda f: not f.run_image,
        does=f"{AS_CALLED}, with a warning",
        outcome="passed-through",
        says="{analyzed} has no [run-image], so there is nothing to export on (see what the analyzer said)",
        level="warn",
        finish="exec",
    ),
)
"""For the restorer and the exporter."""
