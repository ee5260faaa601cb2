"""What to do in front of the exporter, which has the last word, and of the phases that only need an exec."""

from __future__ import annotations

from shim.policy import nothing
from shim.policy.row import End, Step, always, section

_TAKES_IT = section(
    "takes-it",
    lambda f: not f.image or f.reference == "name" or f.reference == ("id" if f.build == "daemon" else "digest"),
    End(
        name="",
        when="no `run-image.image`; or a name; or an image ID in a daemon build; or a digest in a registry build",
        holds=always,
        does=nothing.AS_CALLED,
        outcome="passed-through",
        says="the exporter takes run-image.reference as it is ({before})",
        level="debug",
        finish="exec",
    ),
)

_HEALS = section(
    "heals",
    lambda f: f.build != "daemon",
    End(
        name="",
        when="a registry build, and the reference is an image ID beside an `image`",
        holds=lambda f: f.reference == "id",
        does="sets the reference back to the name and execs the exporter",
        outcome="name-restored",
        says="set run-image.reference back to {name}: a registry build can't export on an image ID of the daemon",
        write="name",
        finish="exec",
    ),
    End(
        name="empty reference",
        when="a registry build, and the reference is empty beside an `image`",
        holds=always,
        does="sets the reference to the name and execs the exporter",
        outcome="filled",
        says="set the empty run-image.reference, which fails every export, to {name}",
        write="name",
        finish="exec",
    ),
)

_REPAIRS = section(
    "repairs",
    always,
    Step(
        name="ask",
        when="a daemon build, and the reference is a digest or empty",
        holds=lambda f: f.daemon == "unasked",
        does="asks the daemon for the name",
        action="ask-name",
    ),
    End(
        name="empty reference",
        when="a daemon build, the reference is empty, and the daemon has the run image",
        holds=lambda f: f.reference == "empty" and f.daemon == "has",
        does="sets the reference to the daemon's image ID and execs the exporter",
        outcome="filled",
        says="set the empty run-image.reference, which fails every export, to {id}, the daemon's image for {name}",
        write="id",
        finish="exec",
    ),
    End(
        name="empty reference, no image",
        when="a daemon build, the reference is empty, and the daemon does not have the name or does not answer",
        holds=lambda f: f.reference == "empty",
        does="sets the reference to the name and execs the exporter, with a warning that says what to run",
        outcome="filled",
        says="set the empty run-image.reference to {name} ({detail}); if the export doesn't find it: "
        "docker pull {name}",
        level="warn",
        write="name",
        finish="exec",
    ),
    Step(
        name="ask for the reference",
        when="a daemon build, and the daemon answers",
        holds=lambda f: f.daemon in ("has", "lacks") and f.resolves == "unasked",
        does="asks the daemon for the reference",
        action="ask-reference",
    ),
    End(
        name="resolves",
        when="a daemon build, and the reference is the daemon's image of the name, or of no name",
        holds=lambda f: f.resolves == "same" or (f.daemon == "lacks" and f.resolves == "other"),
        does="leaves every byte and execs the exporter",
        outcome="resolves",
        says="the daemon has {before}",
        finish="exec",
    ),
    End(
        name="not in the daemon",
        when="a daemon build, and the daemon has neither the name nor the reference",
        holds=lambda f: f.daemon == "lacks" and f.resolves == "nowhere",
        does="leaves every byte and execs the exporter, with a warning that says what to run",
        outcome="not-in-daemon",
        says="the daemon has neither {before} nor {name}, so the export will fail (docker pull {name})",
        level="warn",
        finish="exec",
    ),
    End(
        name="no answer",
        when="a daemon build, and the daemon does not answer",
        holds=lambda f: f.daemon != "has" or f.resolves == "silent",
        does="leaves every byte and execs the exporter, with a warning that says what to run",
        outcome="unrepaired",
        says="left run-image.reference as {before} ({detail}); if the export doesn't find it: docker pull {before}",
        level="warn",
        finish="exec",
    ),
    End(
        name="",
        when="a daemon build, and the daemon does not have the reference, or it is another image",
        holds=always,
        does="sets the reference to the daemon's image ID and execs the exporter",
        outcome="reverted",
        says="the daemon does not have {before}; set run-image.reference to {id}, its image for {name}",
        write="id",
        finish="exec",
    ),
)

EXPORTER: tuple[Step | End, ...] = (*nothing.CALL, *nothing.ANALYZED, *_TAKES_IT, *_HEALS, *_REPAIRS)

ANALYZER: tuple[Step | End, ...] = (
    *nothing.CALL,
    *section(
        "note",
        always,
        End(
            name="",
            when="the analyzer runs at 0.10 or 0.11",
            holds=lambda f: f.noted,
            does="leaves the note beside analyzed.toml and execs the analyzer",
            outcome="noted",
            says="noted in {note} that this is a {build} build",
            level="debug",
            finish="exec",
        ),
        End(
            name="not written",
            when="the note can't be written",
            holds=always,
            does=nothing.AS_CALLED,
            outcome="passed-through",
            says="{detail}",
            level="debug",
            finish="exec",
        ),
    ),
)

OTHER: tuple[Step | End, ...] = section(
    "nothing-to-do",
    always,
    End(
        name="another phase",
        when="another phase of the lifecycle",
        holds=always,
        does=nothing.AS_CALLED,
        outcome="passed-through",
        says="nothing to do for this phase",
        level="debug",
        finish="exec",
    ),
)
