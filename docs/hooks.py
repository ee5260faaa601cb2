"""Mermaid sequence diagrams as inline SVG: drawn when the site is built, in the colours of the theme, without a script.

A forge draws the same fences itself. Of mermaid's language this reads `participant A`, `A->>B: text`, `A-xB: text` (a
message that fails) and `Note over A: text`.
"""

from __future__ import annotations

import html
import re

_COLUMN, _ROW, _TOP, _WIDTH = 136, 44, 46, 112
_FENCE = re.compile(r"^```mermaid\nsequenceDiagram\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MESSAGE = re.compile(r"^(\w+)(->>|-x)(\w+): (.+)$")
_NOTE = re.compile(r"^Note over (\w+): (.+)$")


def on_page_markdown(markdown: str, **_: object) -> str:
    """Replace each fence by its drawing."""
    return _FENCE.sub(lambda found: draw(found[1]), markdown)


def on_page_content(content: str, **_: object) -> str:
    """Mark the code in a sentence that has no blank, so that no line ends at a hyphen of an option."""
    return re.sub(r"<code>([^<\s]{1,40})</code>", r'<code class="whole">\1</code>', content)


def draw(text: str) -> str:
    """Return a diagram as SVG.

    Raises:
        ValueError: a line is no step.

    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    actors = [line.removeprefix("participant ") for line in lines if line.startswith("participant ")]
    steps = lines[len(actors) :]
    at = {name: _COLUMN // 2 + number * _COLUMN for number, name in enumerate(actors)}
    width, height = _COLUMN * len(actors), _TOP + _ROW * len(steps) + 6
    size = f'width="{width}" height="{height}" viewBox="0 0 {width} {height}"'
    parts = [f'<svg class="sequence" {size} role="img">']
    parts.append(f"<title>{html.escape(' / '.join(steps))}</title>")
    for name, x in at.items():
        parts.append(f'<line class="life" x1="{x}" y1="{_TOP - 10}" x2="{x}" y2="{height - 6}"/>')
        parts.append(f'<rect class="actor" x="{x - _WIDTH // 2}" y="6" width="{_WIDTH}" height="26" rx="4"/>')
        parts.append(f'<text class="name" x="{x}" y="23">{html.escape(name)}</text>')
    for number, step in enumerate(steps):
        parts += _step(step, at, _TOP + _ROW * number + 22)
    hint = "<figcaption>Scroll sideways to see all of it →</figcaption>"
    return "\n".join(['<figure class="sequence">', "<div>", *parts, "</svg>", "</div>", hint, "</figure>"])


def _step(step: str, at: dict[str, int], y: int) -> list[str]:
    message, note = _MESSAGE.match(step), _NOTE.match(step)
    if note and note[1] in at:
        x = at[note[1]]
        side = ("before", -8) if x == max(at.values()) else ("own", 8)
        words = f'<text class="{side[0]}" x="{x + side[1]}" y="{y + 4}">{html.escape(note[2])}</text>'
        return [words, f'<circle cx="{x}" cy="{y}" r="3"/>']
    if message is None or not {message[1], message[3]} <= set(at):
        raise ValueError(f"no step of a sequence: {step!r}")
    start, end = at[message[1]], at[message[3]]
    kind = "fails" if message[2] == "-x" else "sent"
    tip = -8 if end > start else 8
    return [
        f'<line class="{kind}" x1="{start}" y1="{y}" x2="{end}" y2="{y}"/>',
        f'<path class="{kind}" d="M{end + tip} {y - 4} L{end} {y} L{end + tip} {y + 4}"/>',
        f'<text class="{kind}" x="{(start + end) / 2}" y="{y - 6}">{html.escape(message[4])}</text>',
    ]
