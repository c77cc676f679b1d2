"""Pages as text: a frame that loads nothing from anywhere, tables, lists of facts."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import cache
from html import escape as escape
from importlib import resources

from keyhop.comparison import palette
from keyhop.core.designs.source import MEANINGS, Source

# A report is opened from a disk, a share or a mail: whatever is not in the page itself is refused by the browser.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"


def page(title: str, body: Iterable[str]) -> str:
    return (
        '<!DOCTYPE html>\n<html lang="en"><head><meta charset="utf-8">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<title>{escape(title)}</title><style>{_style()}</style></head>\n<body>\n"
        + "\n".join(body)
        + "\n</body></html>\n"
    )


@cache
def _style() -> str:
    sheet = (resources.files("keyhop.comparison") / "report.css").read_text(encoding="utf-8")
    return palette.rules() + sheet


def table(heads: Sequence[str], rows: Iterable[Sequence[str]], kind: str = "") -> str:
    """Cells are HTML, `<td` and all, or plain words to be wrapped by `cell`."""
    head = "".join(f"<th>{word}</th>" for word in heads)
    body = "".join(f"<tr>{''.join(row)}</tr>" for row in rows)
    kind = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{kind}><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>'


def cell(words: str, kind: str = "", below: str = "", style: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    style = f' style="{style}"' if style else ""
    small = f"<small>{escape(below)}</small>" if below else ""
    return f"<td{kind}{style}>{escape(words)}{small}</td>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    return "<dl>" + "".join(f"<dt>{escape(name)}</dt><dd>{escape(words)}</dd>" for name, words in pairs) + "</dl>"


def link(target: str, words: str, *, current: bool = False, swatch: str = "") -> str:
    here = ' aria-current="page"' if current else ""
    mark = f'<span class="swatch" style="background:{swatch}"></span>' if swatch else ""
    return f'<a href="{escape(target)}"{here}>{mark}{escape(words)}</a>'


def note(words: str, *, bad: bool = False) -> str:
    return f'<p class="note{" bad" if bad else ""}">{escape(words)}</p>'


def paragraph(words: str, kind: str = "") -> str:
    kind = f' class="{kind}"' if kind else ""
    return f"<p{kind}>{escape(words)}</p>"


def legend(entries: Iterable[tuple[str, str]]) -> str:
    """Colour and words."""
    marks = (f'<span><i style="background:{colour}"></i>{escape(words)}</span>' for colour, words in entries)
    return f'<div class="legend">{"".join(marks)}</div>'


def tag(source: Source) -> str:
    return f'<span class="tag" style="background:var(--s-{source})" title="{MEANINGS[source]}">{source}</span>'
