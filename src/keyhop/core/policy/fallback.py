"""What is done when there is not enough key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class Deny:
    """The request is refused at once."""


@dataclass(frozen=True, slots=True)
class Wait:
    """The request waits for key until its deadline."""

    deadline_ns: int = 5_000_000_000


@dataclass(frozen=True, slots=True)
class Hybrid:
    """QKD is combined with an exchange; without QKD the exchange alone."""

    combine: Literal["xor", "kdf"] = "xor"
    source: Literal["pki", "ml_kem"] = "ml_kem"
    resume: int = 16


@dataclass(frozen=True, slots=True)
class Derive:
    """Short key is stretched."""

    relay: bool = True
    strict_its: bool = False


@dataclass(frozen=True, slots=True)
class ByCategory:
    """One of the others, by the category of the request."""

    table: tuple[Literal["deny", "wait", "stretch", "derive", "any"], ...] = (
        "wait",
        "wait",
        "stretch",
        "derive",
        "any",
    )
