#!/usr/bin/env python3
"""Render the reference pages from the code that they describe.

python docs/render.py           writes them
python docs/render.py --check   exits 1 where one isn't what would be written
"""

from __future__ import annotations

import pathlib
import sys

from shim import policy

REFERENCE = pathlib.Path(__file__).parent / "reference"
NOTICE = "<!-- Rendered by docs/render.py from the code; a test holds this page against it. -->\n"
STEPS = {"restorer": "The restorer", "exporter": "The exporter: the last word", "analyzer": "The analyzer"}


def policy_page() -> str:
    """Return the page of the evidence and the rows."""
    lines = [
        "# The policy",
        "",
        NOTICE,
        "All of it is decided by the first row that holds, from top to bottom. *ID* is the daemon's image of the",
        "run image's name, without `sha256:`; *name* is `run-image.image`.",
        "",
        "## Is it a daemon build?",
        "",
        "**Known**, by the first of these that speaks:",
        "",
        "| # | evidence | in the report |",
        "|---|---|---|",
        *(f"| {witness.number} | {witness.when} | `{witness.name}` |" for witness in policy.EVIDENCE),
        "",
        "**Likely**: not known, and an engine answers that has the run image under its name, or its socket is there",
        "but isn't ours to open (platforms mount it for daemon builds only). **Unknown**: otherwise.",
        "",
        "At the exporter its own `-daemon`, else `CNB_USE_DAEMON`, says what build it is, and nothing else does.",
    ]
    for phase, title in STEPS.items():
        lines += ["", f"## {title}", "", "| # | when | then | outcome |", "|---|---|---|---|"]
        for row in policy.TABLES[phase]:
            verdict = row.verdict
            going_on = verdict.step != "nothing" or verdict.run == "parent"
            outcome = "*decided again*" if going_on else f"`{verdict.outcome}`"
            lines.append(f"| {row.number} | {row.when} | {row.then} | {outcome} |")
    lines += ["", "Another phase of the lifecycle is become as it was called.", ""]
    return "\n".join(lines)


PAGES = {"policy.md": policy_page}


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
