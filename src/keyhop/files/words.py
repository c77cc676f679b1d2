"""How messages about a file show what stands in it, and guess what was meant."""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches

SHOWN_CHARACTERS = 60


def below(place: str, key: str) -> str:
    return ".".join(part for part in (place, shown(key, quote=False) if key else "") if part)


def shown(text: str, *, quote: bool = True) -> str:
    short = text if len(text) <= SHOWN_CHARACTERS else text[:SHOWN_CHARACTERS] + "…"
    return repr(short) if quote or not short.isprintable() else short


def nearest(word: str, known: Iterable[str], otherwise: str = "") -> str:
    """What somebody who wrote `word` probably meant."""
    known = list(known)
    near = get_close_matches(word.lower(), [name.lower() for name in known], 1)
    if near:
        return f"did you mean {next(name for name in known if name.lower() == near[0])}?"
    return otherwise or f"known here: {', '.join(known) or 'nothing'}"
