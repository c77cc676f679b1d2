"""What the policy of a node decides for a request and for a link, and which of its rules decided each value."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from fractions import Fraction
from typing import Any, Literal, NamedTuple

from keyhop.core import constraints
from keyhop.core.constraints import NO_CONSTRAINTS, Constraints
from keyhop.core.label import Label
from keyhop.core.model import Refusal, RequestError
from keyhop.core.policy import fallback as fallbacks
from keyhop.core.policy.disposal import FullStore
from keyhop.core.policy.fallback import Deny, Derive, Hybrid, Wait

SIZE_STEP_BITS = 8
ANYTHING = "*"


class ServiceClass(StrEnum):
    """By how tightly an application is served; the words of `priority.CLASSES`."""

    GUARANTEED = "guaranteed"
    PRIORITISED = "prioritised"
    BEST_EFFORT = "best_effort"


class Place(NamedTuple):
    """Where a value was decided."""

    rule: str
    """Name of the rule, `default`, or `built in`."""
    file: str = ""
    line: int = 0

    def __str__(self) -> str:
        return f"{self.rule} ({self.file}:{self.line})" if self.file else self.rule


BUILT_IN = Place("built in")


class Value(NamedTuple):
    value: Any
    place: Place


class Lifetime(NamedTuple):
    """How long an application may use a key; one of the two."""

    duration_ns: int | None = None
    volume_bytes: int | None = None
    """Of what is encrypted with it."""


class Fallback(NamedTuple):
    """What becomes of a request that there is not enough key for."""

    verb: Literal["deny", "wait", "hybrid", "derive"]
    wait_ns: int = 0


class Quota(NamedTuple):
    """Token buckets; None: no limit of its own."""

    rate_bps: int | None = None
    burst_bits: int = 1 << 20
    requests_per_s: int | None = None
    requests_burst: int = 100


VALUES: Mapping[str, Any] = {
    "key_size.default": 256,
    "key_size.min": 64,
    "key_size.max": 8192,
    "lifetime": None,
    "class": ServiceClass.BEST_EFFORT,
    "rate": None,
    "burst": 8192,
    "weight": 1,
    "category": 5,
    "fallback": Fallback("deny"),
    "combine": "none",
    "label": False,
    "quota.application": None,
    "quota.pair": None,
    "bounds.max_epsilon": None,
    "bounds.its_only": False,
    "bounds.max_age": None,
    "bounds.vendor.wanted": None,
    "bounds.vendor.refused": frozenset(),
    "bounds.min_vendors": None,
    "bounds.avoid_node": frozenset(),
    "bounds.max_hops": None,
    "bounds.rng": None,
    "bounds.min_trust": None,
}
"""Every word of a rule, and what holds where no rule says anything."""

LINK_VALUES: Mapping[str, Any] = {
    "reserve": 0,
    "floor": Fraction(1, 10),
    "quota": None,
    "full_store": "stop",
}
"""The same for a link."""

MEETS_NO_ITS = ("hybrid", "derive")


class Rule(NamedTuple):
    """The values of requests that it matches."""

    name: str
    applications: tuple[str, ...]
    """Patterns with `*`, `?` and `[…]` for who asks."""
    peers: tuple[str, ...]
    between: tuple[str, str] | None
    """Patterns for both, whichever of the two asks."""
    values: Mapping[str, Value]
    place: Place

    def matches(self, master: str, slave: str) -> bool:
        if not _fits(master, self.applications) or not _fits(slave, self.peers):
            return False
        if self.between is None:
            return True
        one, other = self.between
        return (fnmatchcase(master, one) and fnmatchcase(slave, other)) or (
            fnmatchcase(master, other) and fnmatchcase(slave, one)
        )

    @property
    def matches_all(self) -> bool:
        every = self.between is None or set(self.between) == {ANYTHING}
        return every and ANYTHING in self.applications and ANYTHING in self.peers


class LinkRule(NamedTuple):
    links: tuple[str, ...]
    values: Mapping[str, Value]
    place: Place


@dataclass(frozen=True, slots=True, kw_only=True)
class Terms:
    """What holds for one pair of applications."""

    key_size_bits: int
    """For a request that names none."""
    min_key_size_bits: int
    max_key_size_bits: int
    lifetime: Lifetime | None
    service_class: ServiceClass
    rate_bps: int
    """Guaranteed; 0 in any other class."""
    burst_bits: int
    """What a guaranteed stream may take at once."""
    weight: int
    category: int
    fallback: Fallback
    combine: Literal["none", "xor", "kdf"]
    label: bool
    """Whether every answer says what is known of its keys."""
    application_quota: Quota | None
    pair_quota: Quota | None
    bounds: Constraints
    rule: Place
    places: Mapping[str, Place]
    """For each word of `VALUES` who decided it."""

    def key_size(self, asked_bits: int | None) -> int:
        """The size of the key to give; raises RequestError."""
        size = self.key_size_bits if asked_bits is None else asked_bits
        if not self.min_key_size_bits <= size <= self.max_key_size_bits:
            legal = f"{self.min_key_size_bits} to {self.max_key_size_bits}"
            raise RequestError(Refusal.BAD_REQUEST, f"size = {size}: must be {legal} for this pair of applications")
        return size

    def demands(self, asked: Constraints = NO_CONSTRAINTS) -> Constraints:
        """Of the policy and of the request together; raises RequestError where they exclude each other."""
        together = constraints.both(self.bounds, asked)
        if why := constraints.contradiction(together):
            raise RequestError(
                Refusal.UNSUPPORTED, constraints.UNMET, ({"reason": f"together with the policy of this KME, {why}"},)
            )
        if (together.its_only or together.max_epsilon is not None) and self.combine == "kdf":
            raise RequestError(
                Refusal.UNSUPPORTED, constraints.UNMET, ({"reason": "keys of this pair go through a KDF"},)
            )
        return together

    def check(self, key: Label, asked: Constraints, now: int) -> None:
        """Raises RequestError unless a key of this label may be given."""
        constraints.check(key, self.demands(asked), now)

    def answer(self, demanded: Constraints, need: fallbacks.Need) -> fallbacks.Decision:
        """What becomes of a request that meets this stock. Nothing that is not `its` stands in for what must be."""
        part = self.fallback_part()
        if (demanded.its_only or demanded.max_epsilon is not None) and isinstance(part, Hybrid | Derive):
            part = Deny()
        if need.short or (need.degraded and isinstance(part, Hybrid)):
            return part.decide(need)
        return fallbacks.SUPPLY if self.combine == "none" else fallbacks.Decision("combine", its=self.combine == "xor")

    def fallback_part(self) -> Deny | Wait | Hybrid | Derive:
        match self.fallback.verb:
            case "deny":
                return Deny()
            case "wait":
                return Wait(self.fallback.wait_ns)
            case "hybrid":
                return Hybrid(combine="kdf" if self.combine == "kdf" else "xor")
            case "derive":
                return Derive()


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkTerms:
    """What holds for one link."""

    reserve_bits: int
    """Stock that supply cannot touch: for pads, tags and what relay owes others."""
    floor: Fraction
    """The part of its key that best effort gets whatever else is asked; guarantees hold the rest at most."""
    quota: Quota | None
    """All applications together."""
    full_store: FullStore
    places: Mapping[str, Place]

    def usable_bits(self, stock_bits: int) -> int:
        """What supply may take of the stock."""
        return max(0, stock_bits - self.reserve_bits)


class Fault(NamedTuple):
    """Values that are right alone and wrong together."""

    word: str
    what: str
    legal: str


NO_RULE = Rule("default", (ANYTHING,), (ANYTHING,), None, {}, BUILT_IN)


@dataclass(frozen=True, slots=True)
class Policy:
    rules: tuple[Rule, ...] = ()
    default: Rule = NO_RULE
    links: tuple[LinkRule, ...] = ()
    limits: Mapping[str, Value] | None = None
    """Values of the node itself; they hold where no rule says anything, and its key sizes bound those of rules."""

    def rule_for(self, master: str, slave: str) -> Rule:
        """The first that matches."""
        return next((rule for rule in self.rules if rule.matches(master, slave)), self.default)

    def terms(self, master: str, slave: str) -> Terms:
        return self.terms_of(self.rule_for(master, slave))

    def terms_of(self, rule: Rule) -> Terms:
        found = self._resolved(rule)

        def value(word: str) -> Any:
            return found[word].value

        guaranteed = value("class") is ServiceClass.GUARANTEED
        return Terms(
            key_size_bits=value("key_size.default"),
            min_key_size_bits=value("key_size.min"),
            max_key_size_bits=value("key_size.max"),
            lifetime=value("lifetime"),
            service_class=value("class"),
            rate_bps=(value("rate") or 0) if guaranteed else 0,
            burst_bits=value("burst"),
            weight=value("weight"),
            category=value("category"),
            fallback=value("fallback"),
            combine=value("combine"),
            label=value("label"),
            application_quota=value("quota.application"),
            pair_quota=value("quota.pair"),
            bounds=_bounds({word: one.value for word, one in found.items()}),
            rule=rule.place,
            places={word: one.place for word, one in found.items()},
        )

    def link(self, name: str) -> LinkTerms:
        rule = next((rule for rule in self.links if _fits(name, rule.links)), None)
        given = rule.values if rule is not None else {}
        found = {word: given.get(word, Value(value, BUILT_IN)) for word, value in LINK_VALUES.items()}
        return LinkTerms(
            reserve_bits=found["reserve"].value,
            floor=found["floor"].value,
            quota=found["quota"].value,
            full_store=found["full_store"].value,
            places={word: one.place for word, one in found.items()},
        )

    def faults(self) -> Iterator[tuple[int | None, Fault]]:
        """(number of the rule, or None for the default; what is wrong with it)."""
        for number, rule in [*enumerate(self.rules), (None, self.default)]:
            earlier = next((one for one in self.rules[:number] if one.matches_all), None) if number else None
            if earlier is not None:
                yield number, Fault("", f"{rule.name} is never reached", f"rule {earlier.name} before it matches all")
            for fault in _faults(rule, self.terms_of(rule)):
                yield number, fault

    def _resolved(self, rule: Rule) -> dict[str, Value]:
        limits = self.limits or {}
        found = {}
        for word, built_in in VALUES.items():
            in_hand = rule.values.get(word) or self.default.values.get(word)
            found[word] = in_hand or limits.get(word) or Value(built_in, BUILT_IN)
        for word, narrower in (("key_size.max", min), ("key_size.min", max)):
            if word in limits:
                stricter = narrower(found[word].value, limits[word].value)
                found[word] = found[word] if stricter == found[word].value else limits[word]
        return found


def _fits(name: str, patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def _bounds(values: Mapping[str, Any]) -> Constraints:
    made = Constraints(
        max_epsilon=values["bounds.max_epsilon"],
        its_only=values["bounds.its_only"],
        max_age_ns=values["bounds.max_age"],
        vendors_wanted=values["bounds.vendor.wanted"],
        vendors_refused=values["bounds.vendor.refused"],
        min_vendors=values["bounds.min_vendors"],
        avoid_nodes=values["bounds.avoid_node"],
        max_hops=values["bounds.max_hops"],
        rng=values["bounds.rng"],
        min_trust=values["bounds.min_trust"],
    )
    return NO_CONSTRAINTS if made == NO_CONSTRAINTS else made


def _faults(rule: Rule, terms: Terms) -> Iterator[Fault]:
    low, size, high = terms.min_key_size_bits, terms.key_size_bits, terms.max_key_size_bits
    if not low <= size <= high:
        what = f"default {size}, min {low}, max {high} bit do not fit together"
        yield Fault("key_size", what, "must be min <= default <= max, also with what is inherited")
    guaranteed = terms.service_class is ServiceClass.GUARANTEED
    if guaranteed and not terms.rate_bps:
        yield Fault("class", "nothing says what is guaranteed", "write rate: 10 kbps, or another class")
    for word in ("rate", "burst"):
        if not guaranteed and word in rule.values:
            yield Fault(word, f"the class is {terms.service_class}", f"remove {word}, or write class: guaranteed")
    if guaranteed and terms.burst_bits < size:
        yield Fault("burst", f"{terms.burst_bits} bit is less than one key of {size}", "must hold one key or more")
    if why := constraints.contradiction(terms.bounds):
        yield Fault("bounds", why, "demand what some key can meet")
    strict = "its_only" if terms.bounds.its_only else "max_epsilon" if terms.bounds.max_epsilon is not None else ""
    if strict and terms.fallback.verb in MEETS_NO_ITS:
        what = f"fallback {terms.fallback.verb} can never meet {strict}"
        yield Fault("fallback", what, f"write deny or wait, or lift bounds.{strict}")
    if strict and terms.combine == "kdf":
        yield Fault(
            "combine", f"what leaves a KDF can never meet {strict}", f"write none or xor, or lift bounds.{strict}"
        )
