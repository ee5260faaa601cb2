"""What to do in front of the restorer, while it runs and after it."""

from __future__ import annotations

from shim.policy import nothing
from shim.policy.row import End, Step, always, section

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from shim.policy.facts import Facts
    from shim.policy.row import Level


def _not_run(f: Facts) -> bool:
    return f.run == "none"


def _cannot_ask(f: Facts) -> bool:
    return f.build == "daemon" and f.daemon in ("absent", "denied", "silent")


def _socket_denied(f: Facts) -> bool:
    return f.build == "unknown" and f.daemon == "denied"


_RUN_WITHOUT = "runs the restorer as a child process, without the registry lookup"
_NAME_FOUND = "which the exporter resolves in the daemon ({detail})"

_BROKEN_AFTER = section(
    "left unreadable",
    lambda f: not _not_run(f) and f.analyzed != "readable",
    End(
        name="",
        when="the restorer left an analyzed.toml that can't be read",
        holds=always,
        does="returns the restorer's exit status, with a warning",
        outcome="unrepaired",
        says="{detail}; the restorer ({status}) left it like this",
        level="warn",
    ),
)

_TARGET = section(
    "nothing-to-do",
    _not_run,
    End(
        name="target known",
        when="`run-image.target.os` is set",
        holds=lambda f: f.target,
        does=nothing.AS_CALLED,
        outcome="passed-through",
        says="run-image.target.os is set, so the restorer looks nothing up",
        level="debug",
        finish="exec",
    ),
)

_NO_SWITCH = section(
    "no-switch",
    lambda f: _not_run(f) and not f.image,
    End(
        name="",
        when="no extension switched the run image (`run-image.image` is absent)",
        holds=lambda f: f.named,
        does="execs the restorer without the registry lookup, which would crash it",
        outcome="no-lookup",
        says="no extension switched the run image; skipped the lookup, which would crash the restorer",
        finish="exec",
        lookup=False,
    ),
    Step(
        name="another program",
        when="the same, and the program is only taken for the restorer",
        holds=always,
        does=_RUN_WITHOUT,
        action="run",
        lookup=False,
    ),
)

_REGISTRY_BUILD = section(
    "registry-build",
    lambda f: f.build == "registry" and f.image,
    End(
        name="empty reference",
        when="a registry build, and the reference is empty (lifecycle 0.17)",
        holds=lambda f: f.reference == "empty",
        does="sets the reference to the name and execs the restorer as called",
        outcome="filled",
        says="set the empty run-image.reference to {name} (registry build, by {by})",
        write="name",
        finish="exec",
    ),
    End(
        name="",
        when="a registry build",
        holds=always,
        does="execs the restorer as called",
        outcome="not-a-daemon-build",
        says="registry build (by {by})",
        level="debug",
        finish="exec",
    ),
)


def _out_of_reach(which: str, guard: Callable[[Facts], bool], when: str, level: Level) -> tuple[Step | End, ...]:
    return section(
        f"daemon-out-of-reach{which}",
        lambda f: _not_run(f) and guard(f),
        Step(
            name="another program",
            when=f"{when}, and the program is only taken for the restorer",
            holds=lambda f: not f.named,
            does=_RUN_WITHOUT,
            action="run",
            lookup=False,
        ),
        End(
            name="empty reference",
            when=f"{when}, and the reference is empty",
            holds=lambda f: f.reference == "empty",
            does="sets the reference to the name and execs the restorer without the registry lookup",
            outcome="filled",
            says=f"set the empty run-image.reference to {{name}}, {_NAME_FOUND}",
            level=level,
            write="name",
            finish="exec",
            lookup=False,
        ),
        End(
            name="",
            when=when,
            holds=always,
            does="execs the restorer without the registry lookup; the reference stays the name",
            outcome="kept-name",
            says=f"keeping run-image.reference as {{before}}, {_NAME_FOUND}",
            level=level,
            finish="exec",
            lookup=False,
        ),
    )


_BEFORE_OUT_OF_REACH = (
    *_out_of_reach("", _cannot_ask, "a daemon build, and the daemon can't be asked", "info"),
    *_out_of_reach(
        ": likely",
        _socket_denied,
        "probably a daemon build: the daemon's socket is there, without permission to open it",
        "warn",
    ),
)

_BEFORE_DAEMON_BUILD = section(
    "daemon-build",
    lambda f: _not_run(f) and f.build == "daemon",
    Step(
        name="run and ask",
        when="a daemon build, pull policy `if-not-present`, and the daemon was not asked yet",
        holds=lambda f: f.daemon == "unasked" and f.pull_policy == "if-not-present",
        does=f"{_RUN_WITHOUT}, and asks the daemon for the name meanwhile",
        action="run",
        lookup=False,
        asks=True,
    ),
    Step(
        name="ask",
        when="a daemon build, pull policy `never` or `always`, and the daemon was not asked yet",
        holds=lambda f: f.daemon == "unasked",
        does="asks the daemon for the name",
        action="ask-name",
    ),
    Step(
        name="pull always",
        when="a daemon build, pull policy `always`, and nothing was pulled yet",
        holds=lambda f: f.pull_policy == "always" and not f.pull_tried,
        does="pulls the name; if that fails and the daemon has it, with a warning",
        action="pull",
    ),
    Step(
        name="run",
        when="a daemon build, and the daemon has the run image",
        holds=lambda f: f.daemon == "has",
        does=_RUN_WITHOUT,
        action="run",
        lookup=False,
    ),
    End(
        name="never",
        when="a daemon build, pull policy `never`, and the daemon does not have the run image",
        holds=lambda f: f.pull_policy == "never",
        does="ends with an error before anything runs (exit code 80)",
        outcome="not-in-daemon",
        says='{name} is not in the daemon, and pull policy "never" forbids pulling it',
        level="error",
        finish="refuse",
    ),
    End(
        name="not to be had",
        when="a daemon build, the daemon does not have the run image, and the pull failed",
        holds=always,
        does="execs the restorer as called, with a warning that says what to run",
        outcome="not-in-daemon",
        says="{name} is not in the daemon and can't be pulled; running the restorer as called, but the export "
        "needs it (docker pull {name})",
        level="warn",
        finish="exec",
    ),
)

_BEFORE_UNKNOWN = section(
    "unknown",
    _not_run,
    Step(
        name="run and ask",
        when="nothing is known, and there may be a daemon",
        holds=lambda f: f.daemon == "unasked",
        does="runs the restorer as called, as a child process, and asks the daemon for the name meanwhile",
        action="run",
        asks=True,
    ),
    Step(
        name="run",
        when="nothing is known, and no daemon can be asked",
        holds=always,
        does="runs the restorer as called, as a child process",
        action="run",
    ),
)

_FAILED = section(
    "restorer failed",
    lambda f: f.status in ("failed", "killed"),
    Step(
        name="retry as called",
        when="the restorer failed without the lookup, before it wrote analyzed.toml",
        holds=lambda f: f.status == "failed" and f.run == "without-lookup" and not f.touched and not f.retried,
        does="runs it again as called",
        action="run",
        says="the restorer failed without the registry lookup ({status}); running it again as called",
    ),
    Step(
        name="retry without lookup",
        when="the restorer failed as called, before it wrote analyzed.toml, and the daemon has the run image",
        holds=lambda f: (
            f.status == "failed" and f.daemon == "has" and not f.touched and not f.retried and f.preventable
        ),
        does="runs it again without the lookup, with a warning",
        action="run",
        lookup=False,
        says="the restorer failed ({status}), but the daemon has {name}; retrying without the registry lookup",
    ),
    End(
        name="",
        when="the restorer failed, or a signal ended it",
        holds=always,
        does="returns its exit status",
        outcome="unchanged",
        says="the restorer failed ({status}) and {analyzed} is as it left it",
    ),
)

_AFTER_NO_SWITCH = section(
    "no-switch",
    lambda f: not f.image,
    End(
        name="after another program",
        when="no extension switched the run image, and the program succeeded",
        holds=always,
        does="returns its exit status",
        outcome="no-lookup",
        says="no extension switched the run image; skipped the lookup, which would crash the restorer",
    ),
)

_AFTER_DAEMON_BUILD = section(
    "daemon-build",
    lambda f: f.build == "daemon" and f.daemon in ("has", "lacks"),
    End(
        name="",
        when="a daemon build, the daemon has the run image, and the restorer succeeded without the lookup",
        holds=lambda f: f.daemon == "has" and f.run == "without-lookup",
        does="sets the reference to the daemon's image ID",
        outcome="prevented",
        says="set run-image.reference to {id}, the daemon's image for {name}; registry lookup skipped",
        write="id",
    ),
    End(
        name="retried",
        when="the same, and the restorer succeeded only as called",
        holds=lambda f: f.daemon == "has",
        does="sets the reference to the daemon's image ID",
        outcome="retried",
        says="set run-image.reference to {id}, the daemon's image for {name}; the restorer needed the registry lookup",
        write="id",
    ),
    Step(
        name="pull",
        when="a daemon build, pull policy `if-not-present`, the daemon does not have the run image",
        holds=lambda f: not f.pull_tried,
        does="pulls the name",
        action="pull",
    ),
    End(
        name="can't be pulled",
        when="a daemon build, the daemon does not have the run image, and the pull failed",
        holds=lambda f: f.run == "without-lookup",
        does="execs the restorer again, as called, with a warning that says what to run",
        outcome="not-in-daemon",
        says="{name} is not in the daemon and can't be pulled; running the restorer again as called, but the export "
        "needs it (docker pull {name})",
        level="warn",
        finish="exec",
    ),
    End(
        name="can't be pulled, retried",
        when="the same, and the restorer succeeded only as called",
        holds=always,
        does="leaves the reference, with a warning that says what to run",
        outcome="not-in-daemon",
        says="{name} is not in the daemon and can't be pulled, but the export needs it (docker pull {name})",
        level="warn",
    ),
)


def _after_out_of_reach(which: str, guard: Callable[[Facts], bool], when: str, level: Level) -> tuple[Step | End, ...]:
    return section(
        f"daemon-out-of-reach{which}",
        guard,
        End(
            name="empty reference, after the restorer",
            when=f"{when}, and the reference is empty",
            holds=lambda f: f.reference == "empty",
            does="sets the reference to the name",
            outcome="filled",
            says=f"set the empty run-image.reference to {{name}}, {_NAME_FOUND}",
            level=level,
            write="name",
        ),
        End(
            name="rewritten",
            when=f"{when}, and the restorer succeeded only as called and changed the reference",
            holds=lambda f: f.rewritten,
            does="sets the reference back to the name",
            outcome="kept-name",
            says=f"set run-image.reference back to {{name}}, {_NAME_FOUND}",
            level=level,
            write="name",
        ),
        End(
            name="after the restorer",
            when=when,
            holds=always,
            does="leaves the reference, which is the name",
            outcome="kept-name",
            says=f"keeping run-image.reference as {{before}}, {_NAME_FOUND}",
            level=level,
        ),
    )


_AFTER_OUT_OF_REACH = (
    *_after_out_of_reach("", _cannot_ask, "a daemon build, and no usable answer in time", "info"),
    *_after_out_of_reach(
        ": likely",
        _socket_denied,
        "probably a daemon build, without permission to open the daemon's socket",
        "warn",
    ),
)

_LIKELY = section(
    "likely",
    lambda f: f.daemon == "has",
    End(
        name="retried",
        when="probably a daemon build: the daemon has the run image; the restorer succeeded without the lookup only",
        holds=lambda f: f.retried,
        does="sets the reference to the daemon's image ID",
        outcome="retried",
        says="set run-image.reference to {id}, the daemon's image for {name}; the restorer succeeded without the "
        "registry lookup",
        write="id",
    ),
    End(
        name="empty reference",
        when="the daemon has the run image, and the reference is empty",
        holds=lambda f: f.reference == "empty",
        does="sets the reference to the daemon's image ID",
        outcome="filled",
        says="set the empty run-image.reference, which fails every export, to {id}, the daemon's image for {name}",
        write="id",
    ),
    End(
        name="unchanged",
        when="the daemon has the run image, and the restorer did not change the reference",
        holds=lambda f: not f.rewritten,
        does="leaves every byte",
        outcome="unchanged",
        says="the restorer did not change run-image.reference",
    ),
    Step(
        name="ask for the reference",
        when="the daemon has the run image, and the restorer changed the reference",
        holds=lambda f: f.resolves == "unasked",
        does="asks the daemon for the new reference",
        action="ask-reference",
    ),
    End(
        name="resolves",
        when="the new reference is the daemon's image of the name",
        holds=lambda f: f.resolves == "same",
        does="leaves every byte",
        outcome="resolves",
        says="the daemon has {after}, its image for {name}",
    ),
    End(
        name="no answer",
        when="no answer about the new reference",
        holds=lambda f: f.resolves == "silent",
        does="leaves the reference, with a warning",
        outcome="unrepaired",
        says="left run-image.reference as {after}: {detail}; if the export fails on it, pass --daemon",
        level="warn",
    ),
    End(
        name="reverted",
        when="the daemon does not have the new reference, or it is another image",
        holds=always,
        does="sets the reference back to the daemon's image ID",
        outcome="reverted",
        says="the daemon does not have {after}; set run-image.reference back to {id}, its image for {name}",
        write="id",
    ),
)

_UNKNOWN = section(
    "unknown",
    always,
    End(
        name="empty reference, not in the daemon",
        when="nothing is known, the reference is empty, and the daemon does not have the name",
        holds=lambda f: f.reference == "empty" and f.daemon == "lacks",
        does="leaves the reference, with a warning that names the options",
        outcome="daemon-unknown",
        says="run-image.reference is empty, which fails every export, and {detail}; pass --daemon or --no-daemon, "
        "or wrap the exporter too",
        level="warn",
    ),
    End(
        name="empty reference",
        when="nothing is known, the reference is empty, and no daemon answers",
        holds=lambda f: f.reference == "empty",
        does="sets the reference to the name",
        outcome="filled",
        says="set the empty run-image.reference, which fails every export, to {name}",
        write="name",
    ),
    End(
        name="rewritten",
        when="nothing is known, and the restorer changed the reference",
        holds=lambda f: f.rewritten,
        does="leaves the reference, with a warning that names the option, because nothing indicates a daemon build",
        outcome="daemon-unknown",
        says="the restorer changed run-image.reference to {after}; if this build exports to a daemon, pass --daemon "
        "or set ANALYZED_SHIM_DAEMON=true ({detail})",
        level="warn",
    ),
    End(
        name="",
        when="nothing is known, and the restorer did not change the reference",
        holds=always,
        does="leaves every byte",
        outcome="daemon-unknown",
        says="the build type is unknown, and the restorer did not change run-image.reference",
        level="debug",
    ),
)

RESTORER: tuple[Step | End, ...] = (
    *_BROKEN_AFTER,
    *nothing.CALL,
    *nothing.GROUP,
    *nothing.ANALYZED,
    *_TARGET,
    *_NO_SWITCH,
    *_REGISTRY_BUILD,
    *_BEFORE_OUT_OF_REACH,
    *_BEFORE_DAEMON_BUILD,
    *_BEFORE_UNKNOWN,
    *_FAILED,
    *_AFTER_NO_SWITCH,
    *_AFTER_DAEMON_BUILD,
    *_AFTER_OUT_OF_REACH,
    *_LIKELY,
    *_UNKNOWN,
)
