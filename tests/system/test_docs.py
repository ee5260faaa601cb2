"""The documents say what the code does, in the project's words, and the site is whole."""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import re
import subprocess
import sys
import typing

import pytest
import typer

from shim import cli, errors, policy
from shim.policy import Found, Row
from tests.support.build import SCHEMA

ROOT = pathlib.Path(__file__).parents[2]
DOCS = {path: path.read_text() for path in sorted((ROOT / "docs").rglob("*.md"))}
PAGES = {path: path.read_text() for path in (*ROOT.glob("*.md"), *DOCS)}
COMMANDS, DECISIONS, REPORT = ((ROOT / "docs/reference" / f"{name}.md") for name in ("commands", "decisions", "report"))
COMMAND: typing.Any = typer.main.get_command(cli.app)
REPOSITORY = r"https://(?:github\.com|raw\.githubusercontent\.com)/analyzed-shim/analyzed-shim/(?:blob/|raw/)?main/"
NOT_OUR_WORDS = r"""
    engines? | bare\ IDs? | arch\ digest | no\ daemon\ build | builds?\ for\ a\ registry | what\ build\ it\ is
    | combined\ manifest | becomes\ the\ phase | be\ its\ parent | in\ the\ phases'\ places | put(ting)?\ (it\ )?right
    | mend(s|ed|ing)? | heal(s|ed|ing)? | kept\ away | anew | tells? | speaks? | witness(es)? | isn't\ ours
    | there\ is\ no | isn't\ there | tried | of\ which | what\ it\ takes | last\ word
"""


def words(text: str) -> int:
    """Count what a reader reads: no link's target, no comment, no rule of a table."""
    text = re.sub(r"<!--.*?-->", "", re.sub(r"\]\([^)]*\)", "]", text), flags=re.DOTALL)
    return len(re.findall(r"\S*[^\W_]\S*", text))


def tables(text: str) -> list[list[str]]:
    """All rows of a page's tables, as cells."""
    lines = re.findall(r"^\|(.+)\|$", text, re.MULTILINE)
    return [[cell.strip() for cell in line.split("|")] for line in lines if not re.fullmatch(r"[-|]+", line)]


def in_backticks(text: str) -> list[str]:
    return re.findall(r"`([^`]+)`", text)


def test_the_readme_and_the_docs_are_read_in_the_time_that_they_promise() -> None:
    assert 500 <= words(PAGES[ROOT / "README.md"]) <= 600
    assert sum(len(text.split()) for text in DOCS.values()) <= 7000


def test_the_options_and_their_variables_are_those_of_the_commands() -> None:
    of_code: dict[str, tuple[str, set[str]]] = {}
    for command, found in COMMAND.commands.items():
        for one in found.params:
            for name in (*one.opts, *one.secondary_opts) if one.param_type_name == "option" else ():
                variable = re.search(r"\[(\w+)\]$", one.help or "")
                of_code.setdefault(name, (variable[1] if variable else "", set()))[1].add(command)
    section = PAGES[COMMANDS].partition("\n## Options")[2].partition("\n## ")[0]
    of_page = {
        name: (variables.strip("`"), set(in_backticks(commands)))
        for options, variables, commands, _ in tables(section)[1:]
        for name in in_backticks(options)
    }
    assert of_page == of_code
    readme = re.findall(r"^- `(--[a-z-]+)`.*\(`(\w+)`\):", PAGES[ROOT / "README.md"], re.MULTILINE)
    assert readme == [(name, of_code[name][0]) for name, _ in readme]
    assert len(readme) == 5


def test_the_variables_are_those_that_the_code_reads() -> None:
    read = {f"ANALYZED_SHIM_{phase}" for phase in ("ANALYZER", "RESTORER", "EXPORTER")}
    for path in (ROOT / "shim").glob("*.py"):
        read |= set(re.findall(r'"((?:CNB|DOCKER|ANALYZED_SHIM)_[A-Z_]+)"', path.read_text()))
    assert len(read) > 12
    assert set(re.findall(r"`((?:CNB|DOCKER|ANALYZED_SHIM)_[A-Z_]+)", PAGES[COMMANDS])) == read


def test_the_commands_and_exit_codes_are_those_of_the_command_line() -> None:
    first = {in_backticks(row[0])[0].split()[0] for row in tables(PAGES[COMMANDS].partition("\n## ")[0])[1:]}
    assert first == set(COMMAND.commands)
    of_errors = {one.exit_code for one in vars(errors).values() if isinstance(one, type) and hasattr(one, "exit_code")}
    assert {int(row[0]) for row in tables(PAGES[COMMANDS]) if row[0].isdigit()} == of_errors


def test_the_fields_and_outcomes_of_the_report_are_those_of_its_schema() -> None:
    fields, outcomes = PAGES[REPORT].split("\n## Outcomes")
    names = [name for row in tables(fields)[1:] for name in in_backticks(row[0])]
    assert names == list(SCHEMA["properties"])
    assert [in_backticks(row[0])[0] for row in tables(outcomes)[1:]] == SCHEMA["properties"]["outcome"]["enum"]
    sample = re.search(r"```json\n(.*?)```", fields, re.DOTALL)
    assert sample
    assert json.loads(sample[1]).keys() <= SCHEMA["properties"].keys()


def as_in_the_page(row: Row, has_run: bool = False) -> tuple[str, str, str, str]:
    ran = "has run" if has_run and row.lookup else "exec" if row.lookup else "exec without lookup"
    written = {"": "stays", "id": "ID", "name": "name"}[row.write]
    return row.name, "child process" if row.child and not has_run else ran, written, row.outcome


def test_the_decision_tables_are_the_policy() -> None:
    """All that can come out, of every question and answer, and nothing else."""
    answers = [Found("has", "0" * 64), Found("lacks"), Found("lacks", own="linux/a", other="linux/b"), Found("silent")]
    rows = {as_in_the_page(row) for row in (policy.NOTHING_TO_DO, policy.NOT_WRITTEN, policy.NOTED, policy.NOT_NOTED)}
    for first, second in itertools.product(answers, answers):
        asked = {"run:1": first, "run@sha256:1": second}.__getitem__
        for switched, daemon in itertools.product((True, False), (True, False, None)):
            row = policy.restorer(switched, daemon, "run:1", asked)[0]
            rows.add(("unknown", "child process", "", "") if row.child else as_in_the_page(row))
        for failed, after in itertools.product((True, False), ("run:1", "run@sha256:1")):
            rows.add(as_in_the_page(policy.after_restorer(failed, "run:1", after, "run:1", asked)[0], True))
        for reference in ("", "run:1", "run@sha256:1"):
            rows.add(as_in_the_page(policy.exporter(reference, "run:1", asked)[0]))
    of_page = {
        (name.strip("`"), phase, reference, outcome.strip("`"))
        for name, _, phase, reference, outcome in (row for row in tables(PAGES[DECISIONS]) if len(row) == 5)
        if name != "row"
    }
    assert of_page == rows
    outcomes = {outcome for *_, outcome in rows if outcome} | {policy.filled(policy.EXPORT_UNASKED, "", "r").outcome}
    assert outcomes == set(SCHEMA["properties"]["outcome"]["enum"])
    assert {name for name, *_ in rows} == set(SCHEMA["properties"]["row"]["enum"])


def test_links_inside_the_repository_lead_somewhere() -> None:
    for page, text in PAGES.items():
        for target in re.findall(r"\]\(([^)#]+)", text):
            inside = re.sub(rf"^{REPOSITORY}", "", target)
            if inside != target:
                assert (ROOT / inside).exists(), (page, target)
            elif not target.startswith("https://"):
                assert page != ROOT / "README.md", f"a package index doesn't know {target}"
                assert (page.parent / target).exists(), (page, target)


@pytest.mark.parametrize("command", ["", *COMMAND.commands])
def test_help_and_pages_have_the_words_of_the_field(command: str) -> None:
    said = [*DOCS.values(), PAGES[ROOT / "README.md"]]
    if command:
        one = [sys.executable, "-m", "shim", command, "--help"]
        said = [subprocess.run(one, check=True, capture_output=True, text=True, cwd=ROOT).stdout]
    for text in said:
        prose = re.sub(r"```.*?```", "", text, flags=re.DOTALL)
        found = re.search(rf".*\b({NOT_OUR_WORDS})\b.*", prose, re.IGNORECASE | re.VERBOSE)
        assert not found, found


def test_the_site_builds_strictly_and_loads_nothing_from_elsewhere(tmp_path: pathlib.Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(tmp_path / "site")]
    environ = {**os.environ, "NO_MKDOCS_2_WARNING": "1", "DISABLE_MKDOCS_2_WARNING": "true"}
    built = subprocess.run(command, cwd=ROOT, env=environ, capture_output=True, text=True, check=False)
    assert built.returncode == 0, built.stderr
    pages = [page.read_text() for page in (tmp_path / "site").rglob("index.html")]
    assert len(pages) == len(DOCS)
    for text in pages:
        assert "sequenceDiagram" not in text
        assert not re.search(r'<(?:script|img|link rel="stylesheet")[^>]*(?:src|href)="https?://', text)
    diagrams = [tag for text in pages for tag in re.findall(r'<svg class="sequence"[^>]*>', text)]
    assert len(diagrams) == sum(text.count("```mermaid") for text in DOCS.values()) >= 3


def test_a_diagram_with_a_line_that_is_no_step_does_not_build() -> None:
    sys.path.insert(0, str(ROOT / "docs"))
    try:
        import hooks
    finally:
        sys.path.pop(0)
    actors = "participant a\nparticipant b\n"
    assert hooks.draw(f"{actors}a->>b: x\nNote over b: y").count("<text") == 4
    for step in ("a->>c: x", "a x", "a->>b", "Note over c: x", "loop x"):
        with pytest.raises(ValueError, match="no step"):
            hooks.draw(f"{actors}{step}")
