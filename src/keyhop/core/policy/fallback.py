"""What is done when there is not enough key."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, NamedTuple

MIN_PARENT_BITS = 256
"""Less QKD key than this is not stretched (KISTI, K)."""


class Need(NamedTuple):
    """A request and the stock it meets."""

    size_bits: int
    stock_bits: int
    waited_ns: int = 0
    deadline_ns: int | None = None
    """Since it was asked; None if the application named none."""
    category: int = 1
    key_age_ns: int | None = None
    """Of the key in use, if there is one."""
    lifetime_ns: int = 0
    degraded: bool = False
    """The answer of `Hybrid.degraded` before."""

    @property
    def short(self) -> bool:
        return self.stock_bits < self.size_bits


class Decision(NamedTuple):
    """What becomes of a request. Derived and exchanged bits are booked F; only QKD bits alone or XORed with more stay
    information-theoretically secure."""

    verb: Literal["supply", "deny", "wait", "combine", "exchange", "derive", "stretch"]
    """combine: QKD with an exchange; exchange: that alone; stretch: the key in use stays in use."""
    its: bool = False


SUPPLY = Decision("supply", its=True)


@dataclass(frozen=True, slots=True)
class Deny:
    """The request is refused at once (what the survey's designs without a fallback do)."""

    def decide(self, need: Need) -> Decision:
        return Decision("deny") if need.short else SUPPLY


@dataclass(frozen=True, slots=True)
class Wait:
    """The request waits for key until its deadline (DDKA, S; QoS-supported KM below the guaranteed class, K)."""

    deadline_ns: int = 5_000_000_000
    """For a request that names none (K)."""

    def decide(self, need: Need) -> Decision:
        if not need.short:
            return SUPPLY
        deadline = self.deadline_ns if need.deadline_ns is None else need.deadline_ns
        return Decision("wait" if need.waited_ns < deadline else "deny")


@dataclass(frozen=True, slots=True)
class Hybrid:
    """QKD is always combined with an exchange; when QKD stops, the exchange goes on alone (SwissQuantum, S)."""

    combine: Literal["xor", "kdf"] = "xor"
    """XOR with an independent key keeps ITS (S); through a KDF the outcome is computational."""
    source: Literal["pki", "ml_kem"] = "ml_kem"
    """pki: an exchange under certificates, as then (S); which one now is ours to say (K)."""
    resume: int = 16
    """Units that must be there before QKD is used again, so that it does not flap (K)."""

    def __post_init__(self) -> None:
        if self.resume < 1:
            raise ValueError(f"hybrid.resume = {self.resume}: must be 1 unit or more")

    def degraded(self, before: bool, stock_units: int) -> bool:
        """Whether the exchange goes alone from now on."""
        return stock_units < (self.resume if before else 1)

    def decide(self, need: Need) -> Decision:
        if need.degraded or need.short:
            return Decision("exchange")
        return Decision("combine", its=self.combine == "xor")


@dataclass(frozen=True, slots=True)
class Derive:
    """Short key is stretched (KISTI, S): pads of relay, and keys for applications; never ITS."""

    relay: bool = True
    """Pads too (S); that it can be switched off is ours (K)."""
    strict_its: bool = False
    """Nothing is stretched after all (K)."""

    def decide(self, need: Need) -> Decision:
        if not need.short:
            return SUPPLY
        return self._stretched(need.stock_bits)

    def pad(self, length_bits: int, stock_bits: int) -> Decision:
        """How a relayed key of this length is hidden on a link: one-time pad, derived pad, or not at all."""
        if stock_bits >= length_bits:
            return SUPPLY
        return self._stretched(stock_bits) if self.relay else Decision("deny")

    def _stretched(self, stock_bits: int) -> Decision:
        return Decision("derive" if stock_bits >= MIN_PARENT_BITS and not self.strict_its else "deny")


Rule = Literal["deny", "wait", "stretch", "derive", "any"]


@dataclass(frozen=True, slots=True)
class ByCategory:
    """One answer per category of application (Quantum Canada, S; what the five categories are is ours, K).

    1: one-time pad only, waits, then denied. 2: fresh key per session, waits to its deadline. 3: fresh key, but the one
    in use may live up to `stretch` times as long. 4: derived, from a seed set aside while there was key. 5: whatever
    there is, at once.
    """

    table: tuple[Rule, ...] = ("wait", "wait", "stretch", "derive", "any")
    """From category 1 on (K)."""
    stretch: int = 4
    """Lifetimes (K)."""
    deadline_ns: int = 5_000_000_000
    """For a request that names none (K)."""

    def __post_init__(self) -> None:
        if not self.table or self.stretch < 1:
            raise ValueError(
                f"by_category.table = {self.table}, stretch = {self.stretch}: must name an answer for each category, "
                "and at least 1 lifetime"
            )

    def decide(self, need: Need) -> Decision:
        if not 1 <= need.category <= len(self.table):
            raise ValueError(f"category {need.category}: must be 1 to {len(self.table)}")
        if not need.short:
            return SUPPLY
        wait = Wait(self.deadline_ns).decide(need)
        match self.table[need.category - 1]:
            case "deny":
                return Decision("deny")
            case "wait":
                return wait
            case "stretch":
                lives = need.key_age_ns is not None and need.key_age_ns < need.lifetime_ns * self.stretch
                return Decision("stretch") if lives else wait
            case "derive":
                return Decision("derive")
            case "any":
                return Decision("derive" if need.stock_bits >= MIN_PARENT_BITS else "exchange")
