#!/usr/bin/env python3
"""Render the reference pages from the code that they describe.

python docs/render.py           writes them
python docs/render.py --check   exits 1 where one isn't what would be written
"""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import typer
import typer.main

from shim.policy import TABLES
from shim.policy.evidence import EVIDENCE
from shim.policy.row import Step
from shim.tools import cli
from shim.tools.scenarios import SCENARIOS

REFERENCE = pathlib.Path(__file__).parent / "reference"
NOTICE = "<!-- Rendered by docs/render.py from the code; a test holds this page against it. -->\n"
_MARK = "<!-- From here on rendered by docs/render.py from report.schema.json. -->"
_COUNTED = "<!-- From here on rendered by docs/render.py from the tests that pytest finds. -->"
STEPS = {"restorer": "The restorer", "exporter": "The exporter: the last word", "analyzer": "The analyzer"}


def policy_page() -> str:
    """Return the page of the evidence and the decision tables."""
    lines = [
        "# Decision tables",
        "",
        "What the shim does, row by row, and what it takes as evidence of a daemon build.",
        "",
        NOTICE,
        "A table is read from top to bottom, and the first row that holds counts. After a row without an outcome the",
        "table is read again, with what is known then. *The daemon has the run image* means: under its name,",
        "`run-image.image`. *Without the registry lookup* means: with a group.toml that has no extensions.",
        "",
        "## Is it a daemon build?",
        "",
        "**Known**, by the first of these that says so:",
        "",
        "| evidence | what is looked at |",
        "|---|---|",
        *(f"| `{evidence.name}` | {evidence.what} |" for evidence in EVIDENCE),
        "",
        "**Likely**: not known, and the daemon has the run image under its name, or its socket is there without",
        "permission to open it (platforms mount it for daemon builds only). **Unknown**: otherwise.",
        "",
        "At the exporter its own `-daemon`, else `CNB_USE_DAEMON`, says which build it is, and nothing else does.",
    ]
    for phase, title in STEPS.items():
        lines += ["", f"## {title}", "", "| row | if | the shim | outcome |", "|---|---|---|---|"]
        for row in TABLES[phase]:
            outcome = "" if isinstance(row, Step) else f"`{row.outcome}`"
            lines.append(f"| {row.name} | {row.when} | {row.does} | {outcome} |")
    lines += ["", "Any other phase of the lifecycle is execed as called.", ""]
    return "\n".join(lines)


def scenarios_page() -> str:
    """Return the page of what the bare restorer does, and how it looks from outside."""
    lines = [
        "# Scenarios",
        "",
        NOTICE,
        "What the **bare** restorer does to the run image, measured with lifecycles 0.17.7, 0.20.5 and 0.21.17 on",
        "Docker and Podman. The first row that holds counts. What the shim does names the rows of the",
        "[decision tables](policy.md); `analyzed-shim check` says which scenario a build is.",
        "",
    ]
    lines += ["| scenario | when | lifecycle | the restorer | another pull? | the shim |", "|---|---|---|---|---|---|"]
    for scenario in SCENARIOS:
        lines.append(
            f"| [{scenario.name}](#{scenario.name.replace(',', '').replace(' ', '-').lower()}) | {scenario.when} "
            f"| {scenario.lifecycle} | {scenario.restorer} | {scenario.pull} | {scenario.shim} |"
        )
    lines += ["", "How each looks from outside:", ""]
    for scenario in SCENARIOS:
        lines += [
            f"## {scenario.name[0].upper()}{scenario.name[1:]}",
            "",
            f"*{scenario.when[0].upper()}{scenario.when[1:]}*; lifecycle {scenario.lifecycle}.",
            "",
            f"- A daemon build: {scenario.daemon}.",
            f"- A registry build: {scenario.registry}.",
            "",
        ]
    return "\n".join(lines)


def commands_page() -> str:
    """Return the page of the commands, as `--help` has them."""
    group: Any = typer.main.get_command(cli.app)
    lines = ["# Commands", "", NOTICE, group.help, ""]
    lines += [
        "In the place of a phase, under the name `analyzer`, `restorer` or `exporter`, every argument is the phase's,",
        "options come from the variables only, and the real phase is `restorer.real` beside it, or what",
        "`ANALYZED_SHIM_ANALYZER`, `ANALYZED_SHIM_RESTORER` or `ANALYZED_SHIM_EXPORTER` names.",
        "",
        "`analyzed-shim --install-completion` installs completion for your shell; `--version` and `-h` do what you",
        "expect.",
        "",
    ]
    for name, command in group.commands.items():
        context = command.make_context(name, [], resilient_parsing=True)
        usage = " ".join(part.strip("{}") for part in command.collect_usage_pieces(context))
        lines += [f"## {name}", "", f"```text\nanalyzed-shim {name} {usage}\n```", "", _paragraphs(command.help), ""]
        rows = [_option(parameter) for parameter in command.params if parameter.param_type_name == "option"]
        if rows:
            lines += ["| option | variable | |", "|---|---|---|", *rows, ""]
    return "\n".join(lines)


def _paragraphs(text: str) -> str:
    return "\n\n".join(" ".join(part.split()) for part in text.split("\n\n"))


def _option(option: Any) -> str:
    flags = ", ".join(f"`{flag}`" for flag in (*option.opts, *option.secondary_opts))
    variable = f"`{option.envvar}`" if option.envvar else ""
    return f"| {flags} | {variable} | {option.help} |"


def report_page() -> str:
    """Return the page of the report, with the schema's fields behind its mark."""
    schema = json.loads((REFERENCE / "report.schema.json").read_text(encoding="utf-8"))
    lines = []
    for kind, title in (
        ("report", "of `run`, the drop-ins and `fix`"),
        ("check", "of `check --json`"),
        ("image", "of `check --image --json`"),
    ):
        part = schema["$defs"][kind]
        lines += [f"### {title}", "", "| field | | always |", "|---|---|---|"]
        for name, field in part["properties"].items():
            reference = field.get("$ref", "").rpartition("/")[2]
            told = field.get("description") or schema["$defs"].get(reference, {}).get("description", "")
            lines.append(f"| `{name}` | {told} | {'yes' if name in part['required'] else ''} |")
        lines.append("")
    page = (REFERENCE / "report.md").read_text(encoding="utf-8")
    return page[: page.index(_MARK)] + _MARK + "\n\n" + "\n".join(lines)


TRIED: tuple[tuple[str, str], ...] = (
    (
        "run images by each evidence, on Docker 20.10, Podman 4.3 and Docker 26.1 with the containerd store",
        "system/test_real.py",
    ),
    ("hundreds of runs, sixteen side by side, on a real daemon; what a phase inherits", "system/test_soak.py"),
    ("containers as root, as a user and as process 1, without Python, shell or libc", "system/test_containers.py"),
    (
        "each row of the contract word by word; 1,327,104 combinations of facts; every way on from them",
        "unit/test_policy.py",
    ),
    ("whole builds, bare and wrapped, in thousands of worlds: never worse", "unit/test_never_worse.py"),
    (
        "launchers, scripts in the restorer's place, forks with flags of their own, `extend`",
        "process/test_launchers.py",
    ),
    (
        "whole builds in random worlds of launchers, scripts, configuration, variables, contexts, sockets and owners",
        "process/test_worlds.py",
    ),
    ("the wrapper's story, row by row, with the stand-in, an engine and a registry", "process/test_wrap.py"),
    ("faults of the daemon, on a real socket", "process/test_engine.py"),
    (
        "whom the shim asks: addresses, proxies, TLS and versions as the phase's client takes them",
        "process/test_find.py",
    ),
    ("a daemon's answers, pulls and credentials, over Unix sockets, TCP and TLS", "process/test_client.py"),
    (
        "the docker CLI's daemon, beside any form of the user's configuration",
        "process/test_cli_daemon.py",
    ),
    ("faults of the file system, of TCP and TLS, of the clock and of the note", "process/test_faults.py"),
    (
        "bad input, each on a real file system: full, read-only, a mount of its own, no /proc",
        "process/test_bad_input.py",
    ),
    ("SIGKILL at each step that touches a file, in fifteen ways, and at 300 random moments", "process/test_kills.py"),
    ("exit statuses, signals, streams, environment", "process/test_process.py"),
    ("planted links, pipes and files, with root's rights and the user's", "process/test_rights.py"),
    ("reading and editing analyzed.toml and group.toml, and fuzzing it", "unit/test_files.py"),
    ("any document and any arguments, by fuzzing", "process/test_properties.py"),
    ("a phase's flags and environment", "unit/test_invocation.py"),
    ("the CI step", "process/test_fix.py"),
    ("making a bundle, and its cache", "process/test_bundle.py"),
    ("the program that starts the bundle's interpreter, and damaged parts", "process/test_start.py"),
    ("`builder`: the layer it writes, architectures, hostile archives", "system/test_derive.py"),
    ("`check --image`", "system/test_check_image.py"),
    ("adopting it: the wheel, the container image, a Dockerfile's stage, the action", "system/test_packaging.py"),
    ("what `check` says", "process/test_check.py"),
    ("imports: one way, and nothing heavy in what becomes the phase", "process/test_imports.py"),
    ("the demonstration, on the embedded engine and on real ones", "system/test_demo.py"),
    ("these pages: links, words, the rendered parts, the site", "system/test_docs.py"),
    ("every shell block of every page, word by word", "system/test_pages.py"),
    ("whole builds with real phases on three engines, where `LIFECYCLE_DIR` is set", "system/test_lifecycle.py"),
    ("whom a real phase asks and whom the shim, in random environments, where it is set", "system/test_whom.py"),
)


def tried_page() -> str:
    """Return the page of what was tried, with the number of the tests that pytest finds of each, NIGHTLY=1."""
    command = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-o", "addopts="]
    root = REFERENCE.parent.parent
    # Without what the caller adds: under `--cov` this process would erase what has been measured so far.
    environ = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"} | {"NIGHTLY": "1"}
    found = subprocess.run(
        command, cwd=root, env=environ, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    files = [line.partition("::")[0].removeprefix("tests/") for line in found if "::" in line]
    if unknown := set(files) - {name for _, name in TRIED}:
        raise SystemExit(f"docs/render.py doesn't say what is tried in {', '.join(sorted(unknown))}")
    rows = [f"| {what} | `tests/{name}` | {files.count(name)} |" for what, name in TRIED]
    page = (REFERENCE / "tried.md").read_text(encoding="utf-8")
    total = f"| all | | {len(files)} |"
    return page[: page.index(_COUNTED)] + "\n".join(
        (_COUNTED, "", "| what | where | tests |", "|---|---|---|", *rows, total, "")
    )


PAGES = {
    "tried.md": tried_page,
    "policy.md": policy_page,
    "scenarios.md": scenarios_page,
    "commands.md": commands_page,
    "report.md": report_page,
}


def main() -> int:
    """Write the pages, or compare them."""
    stale = []
    for name, render in PAGES.items():
        path = REFERENCE / name
        text = render()
        if sys.argv[1:] != ["--check"]:
            path.write_text(text, encoding="utf-8")
        elif not path.exists() or path.read_text(encoding="utf-8") != text:
            stale.append(name)
    for name in stale:
        print(f"docs/reference/{name} isn't what docs/render.py writes: run it", file=sys.stderr)
    return 1 if stale else 0


if __name__ == "__main__":
    sys.exit(main())
