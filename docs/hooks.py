"""Sequence diagrams as inline SVG: drawn when the site is built, in the colours of the theme, without a script.

    ```sequence
    actors: platform | analyzer | daemon
    platform -> analyzer: -daemon
    analyzer .. note: daemon = true
    ```

`->` is a message, `-x` one that fails, `..` something that a part does by itself.
"""

from __future__ import annotations

import html
import re

_COLUMN, _ROW, _TOP, _WIDTH = 136, 44, 46, 112
_FENCE = re.compile(r"^```sequence\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_STEP = re.compile(r"^(\w[\w ]*?) (->|-x|\.\.) (?:(\w[\w ]*?): )?(.+)$")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each fence by its drawing."""
    return _FENCE.sub(lambda found: draw(found[1]), markdown)


def draw(text: str) -> str:
    """Return a diagram as SVG.

    Raises:
        ValueError: a line is no step.

    """
    head, *steps = [line.strip() for line in text.strip().splitlines() if line.strip()]
    actors = [name.strip() for name in head.removeprefix("actors:").split("|")]
    at = {name: _COLUMN // 2 + number * _COLUMN for number, name in enumerate(actors)}
    width, height = _COLUMN * len(actors), _TOP + _ROW * len(steps) + 6
    parts = [f'<svg class="sequence" width="{width}" height="{height}" role="img">']
    parts.append(f"<title>{html.escape(' / '.join(steps))}</title>")
    for name, x in at.items():
        parts.append(f'<line class="life" x1="{x}" y1="{_TOP - 10}" x2="{x}" y2="{height - 6}"/>')
        parts.append(f'<rect class="actor" x="{x - _WIDTH // 2}" y="6" width="{_WIDTH}" height="26" rx="4"/>')
        parts.append(f'<text class="name" x="{x}" y="23">{html.escape(name)}</text>')
    for number, step in enumerate(steps):
        parts += _step(step, at, _TOP + _ROW * number + 22)
    return "\n".join(['<figure class="sequence">', *parts, "</svg>", "</figure>"])


def _step(step: str, at: dict[str, int], y: int) -> list[str]:
    found = _STEP.match(step)
    if found is None or found[1] not in at or (found[3] and found[3] not in at) or (found[2] != ".." and not found[3]):
        raise ValueError(f"no step of a sequence: {step!r}")
    start, label = at[found[1]], html.escape(found[4])
    if found[2] == "..":
        side = ("before", -8) if start == max(at.values()) else ("own", 8)
        words = f'<text class="{side[0]}" x="{start + side[1]}" y="{y + 4}">{label}</text>'
        return [words, f'<circle cx="{start}" cy="{y}" r="3"/>']
    end = at[found[3]]
    kind = "fails" if found[2] == "-x" else "sent"
    tip = -8 if end > start else 8
    return [
        f'<line class="{kind}" x1="{start}" y1="{y}" x2="{end}" y2="{y}"/>',
        f'<path class="{kind}" d="M{end + tip} {y - 4} L{end} {y} L{end + tip} {y + 4}"/>',
        f'<text class="{kind}" x="{(start + end) / 2}" y="{y - 6}">{label}</text>',
    ]
