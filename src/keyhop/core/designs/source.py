"""Where a value of a design comes from: the tag that stands beside it wherever it is shown."""

from __future__ import annotations

from enum import StrEnum


class Source(StrEnum):
    SURVEY = "S"
    """Stated in the survey of key managers."""
    PUBLIC = "P"
    """Found in other public text."""
    CODE = "C"
    """Read in public source code."""
    REMEMBERED = "R"
    """Remembered from the literature and not checked: a hint."""
    OWN = "K"
    """Our choice, where nothing is known."""


MEANINGS = {
    Source.SURVEY: "the survey",
    Source.PUBLIC: "other public text",
    Source.CODE: "public source code",
    Source.REMEMBERED: "remembered, not checked",
    Source.OWN: "our choice",
}

S, P, C, R, K = Source
