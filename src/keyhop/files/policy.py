"""The policy file: what a node gives to which applications, and what it keeps for itself."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from keyhop.core import epsilon as epsilons
from keyhop.core import policy_rules
from keyhop.core.label import Entropy, Trust
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy_rules import ANYTHING, LinkRule, Place, Policy, Rule, ServiceClass, Value
from keyhop.files.lines import lines_of
from keyhop.files.reading import FILE_LIMIT_BYTES, CheckError, UnreadableFileError, parse
from keyhop.files.records import Between, Key, Name, OneOrMany, Pattern, fields_of
from keyhop.files.schema import schema
from keyhop.files.units import BITS, PERIOD, RATE, RATIO, SIZE, UnitError
from keyhop.files.words import nearest, shown

RULES_LIMIT = 10_000
KEY_SIZE_LIMIT_BITS = 1 << 17
"""16 KiB: what a key ID has room for."""

Glob = Annotated[str, Pattern(r"[!-~]{1,128}", "1 to 128 visible ASCII characters; * and ? stand for others")]
"""A name of an application or link, or a pattern of such names."""
Names = Annotated[
    tuple[Annotated[str, Pattern(r"[!-~]{1,128}", "1 to 128 visible ASCII characters")], ...], OneOrMany()
]


@dataclass(frozen=True, slots=True)
class Bound:
    """An epsilon, exact."""

    units: int
    """Of 10^-40."""

    FORM = "a number from 1e-40 to 1, such as 1e-10"
    PATTERN = r"^\+?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,3})?$"
    BARE = True

    @classmethod
    def from_text(cls, text: str) -> Self:
        return cls(epsilons.bound(text))

    def __str__(self) -> str:
        return epsilons.written(self.units)


@dataclass(frozen=True, slots=True)
class Lifetime:
    """How long an application may use a key: a time, or what it may encrypt with it."""

    duration_s: float | None = None
    volume_bytes: int | None = None

    FORM = "a time such as 1 h, or an amount such as 1 GB"
    PATTERN = r"^[0-9.]+([eE][+-]?[0-9]+)?\s*(ms|s|min|h|d|B|kB|KiB|MB|MiB|GB|GiB)$"

    @classmethod
    def from_text(cls, text: str) -> Self:
        try:
            return cls(duration_s=float(PERIOD.parse(text)))
        except UnitError as error:
            as_time = error
        try:
            volume = int(SIZE.parse(text))
        except UnitError as error:
            # The unit tells which of the two was meant.
            raise ValueError(error.what if "unit" not in error.what else as_time.what) from None
        if not volume:
            raise ValueError(f"{text} is no lifetime")
        return cls(volume_bytes=volume)

    def __str__(self) -> str:
        return PERIOD.write(self.duration_s) if self.duration_s is not None else SIZE.write(self.volume_bytes or 0)


@dataclass(frozen=True, slots=True)
class Fallback:
    """What becomes of a request that there is not enough key for."""

    verb: Literal["deny", "wait", "hybrid", "derive"]
    wait_s: float = 0.0

    FORM = "deny, wait DURATION (such as wait 5 s), hybrid or derive"
    PATTERN = r"^(deny|hybrid|derive|wait\s+[0-9.]+\s*(ms|s|min|h|d))$"
    VERBS = ("deny", "wait", "hybrid", "derive")

    @classmethod
    def from_text(cls, text: str) -> Self:
        verb, _, duration = text.partition(" ")
        if verb == "wait":
            try:
                return cls("wait", float(PERIOD.parse(duration)))
            except UnitError as error:
                raise ValueError(f"wait {error.what}" if duration else "wait for how long is missing") from None
        if duration or verb not in cls.VERBS:
            raise ValueError(f"{shown(text)} is no fallback ({nearest(verb, cls.VERBS)})")
        return cls(verb)  # type: ignore[arg-type]

    def __str__(self) -> str:
        return f"wait {PERIOD.write(self.wait_s)}" if self.verb == "wait" else self.verb


@dataclass(frozen=True, slots=True, kw_only=True)
class KeySize:
    """What applications may ask for, and what one gets that asks for no size."""

    default_bits: Annotated[int | None, BITS] = None
    min_bits: Annotated[int | None, BITS] = None
    max_bits: Annotated[int | None, BITS] = None

    def __post_init__(self) -> None:
        for name, bits in (("default", self.default_bits), ("min", self.min_bits), ("max", self.max_bits)):
            if bits is not None and (bits % policy_rules.SIZE_STEP_BITS or not 8 <= bits <= KEY_SIZE_LIMIT_BITS):
                legal = f"must be a multiple of 8 from 8 to {KEY_SIZE_LIMIT_BITS} bit"
                raise CheckError(f"{bits} bit is no key size", legal, name)


@dataclass(frozen=True, slots=True, kw_only=True)
class Quota:
    """Token buckets for key and for requests; absent means no limit."""

    rate_bps: Annotated[float | None, RATE] = None
    """Key, averaged."""
    burst_bits: Annotated[int, BITS] = 1 << 20
    """Key, at once."""
    requests_per_s: Annotated[int | None, Between(1, 1_000_000)] = None
    requests_burst: Annotated[int, Between(1, 1_000_000)] = 100

    def __post_init__(self) -> None:
        if self.rate_bps is not None and self.rate_bps < 1:
            raise CheckError(f"{self.rate_bps:g} bit/s would never give a key", "must be 1 bit/s or more", "rate")
        if self.rate_bps is None and self.requests_per_s is None:
            raise CheckError("limits nothing", "write rate: or requests_per_s:")


@dataclass(frozen=True, slots=True, kw_only=True)
class Quotas:
    application: Quota | None = None
    """Of who asks, with all its peers together."""
    pair: Quota | None = None
    """Of who asks with this peer."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Vendors:
    wanted: Names | None = None
    """Every module behind a key is of one of these."""
    refused: Names | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Demands on every key of the rule, under the names that requests use (`keyhop_max_hops`); a request can only be
    stricter."""

    max_epsilon: Bound | None = None
    its_only: bool | None = None
    max_age_s: Annotated[float | None, PERIOD] = None
    vendor: Vendors = Vendors()
    min_vendors: Annotated[int | None, Between(1, 1000)] = None
    avoid_node: Names | None = None
    max_hops: Annotated[int | None, Between(0, 1000)] = None
    rng: Annotated[tuple[Entropy, ...] | None, OneOrMany()] = None
    min_trust: Literal["full", "partial", "erased", "shared", "direct"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Values:
    """What a rule decides; what it leaves out is decided by `default`, then built in."""

    key_size: KeySize = KeySize()
    lifetime: Lifetime | None = None
    service_class: Annotated[ServiceClass | None, Key("class")] = None
    rate_bps: Annotated[float | None, RATE] = None
    """What a guaranteed stream always gets."""
    burst_bits: Annotated[int | None, BITS] = None
    """What a guaranteed stream may take at once."""
    weight: Annotated[int | None, Between(1, 1000)] = None
    """Share among its class."""
    category: Annotated[int | None, Between(1, 5)] = None
    """Security need, 1 the highest."""
    fallback: Fallback | None = None
    combine: Literal["none", "xor", "kdf"] | None = None
    """Whether every key is combined with one of ML-KEM-768, and how."""
    label: bool | None = None
    """Whether every answer says what is known of its keys."""
    quota: Quotas = Quotas()
    bounds: Bounds = Bounds()

    def __post_init__(self) -> None:
        if self.rate_bps is not None and self.rate_bps < 1:
            raise CheckError(f"{self.rate_bps:g} bit/s would never give a key", "must be 1 bit/s or more", "rate")


@dataclass(frozen=True, slots=True, kw_only=True)
class RuleEntry(Values):
    """Decides for the pairs of applications it matches, if no rule before it does. `*` and `?` stand for others."""

    name: Name
    application: Annotated[tuple[Glob, ...], OneOrMany()] = (ANYTHING,)
    """Who asks."""
    peer: Annotated[tuple[Glob, ...], OneOrMany()] = (ANYTHING,)
    """With whom it shares the key."""
    between: tuple[Glob, Glob] | None = None
    """Both, whichever asks."""

    def __post_init__(self) -> None:
        Values.__post_init__(self)
        if self.name == "default":
            raise CheckError("default cannot name a rule", "the one at the end has this name", "name")
        if self.between is not None and (self.application != (ANYTHING,) or self.peer != (ANYTHING,)):
            raise CheckError("between stands beside application or peer", "write one or the other", "between")


@dataclass(frozen=True, slots=True, kw_only=True)
class LinkEntry:
    """Decides for the links it matches, if no entry before it does."""

    link: Annotated[tuple[Glob, ...], OneOrMany()]
    reserve_bytes: Annotated[int | None, SIZE] = None
    """Stock that applications cannot touch."""
    floor: Annotated[float | None, RATIO] = None
    """The part that best effort gets in any case."""
    quota: Quota | None = None
    """All applications together."""
    full_store: Literal["stop", "drop_new", "replace_oldest"] | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyFile:
    """What one node gives to whom. The first rule that matches decides, `default` what it leaves open."""

    api_version: Annotated[Literal["keyhop/v1"], Key("apiVersion")]
    rules: tuple[RuleEntry, ...] = ()
    default: Values = Values()
    links: tuple[LinkEntry, ...] = ()

    def __post_init__(self) -> None:
        if len(self.rules) > RULES_LIMIT:
            raise CheckError(f"{len(self.rules)} rules", f"must be {RULES_LIMIT} or fewer", "rules")
        names = [rule.name for rule in self.rules]
        for at, name in enumerate(names):
            if name in names[:at]:
                raise CheckError(f"{name} stands here twice", "give each rule a name of its own", "rules", at, "name")
        for number, fault in policy_of(self).faults():
            start: tuple[str | int, ...] = ("default",) if number is None else ("rules", number)
            raise CheckError(fault.what, fault.legal, *start, *([fault.word] if fault.word else []))


def policy_of(
    entry: PolicyFile, file: str = "", lines: Mapping[str, int] | None = None, limits: Mapping[str, Value] | None = None
) -> Policy:
    """The file as the core decides by it; with `lines` each value knows where it stands."""

    def place(rule: str, where: str) -> Place:
        line = (lines or {}).get(where, 0)
        return Place(rule, file if line else "", line)

    def values(of: Any, rule: str, where: str) -> dict[str, Value]:
        return {word: Value(value, place(rule, f"{where}.{word}")) for word, value in _written(of)}

    rules = tuple(
        Rule(
            rule.name,
            rule.application,
            rule.peer,
            rule.between,
            values(rule, rule.name, f"rules[{at}]"),
            place(rule.name, f"rules[{at}]"),
        )
        for at, rule in enumerate(entry.rules)
    )
    default = policy_rules.NO_RULE._replace(
        values=values(entry.default, "default", "default"), place=place("default", "default")
    )
    links = tuple(
        LinkRule(link.link, values(link, f"links[{at}]", f"links[{at}]"), place(f"links[{at}]", f"links[{at}]"))
        for at, link in enumerate(entry.links)
    )
    return Policy(rules, default, links, limits)


def load_policy(path: Path, limits: Mapping[str, Value] | None = None) -> Policy:
    """`limits`: values of the node itself, by the words of `policy_rules.VALUES`. Raises keyhop.files.FileError."""
    try:
        with path.open("rb") as opened:
            text = opened.read(FILE_LIMIT_BYTES + 1)
    except OSError as error:
        raise UnreadableFileError(path, error) from None
    entry = parse(PolicyFile, text, str(path), path.absolute().parent)
    return policy_of(entry, str(path), lines_of(text), limits)


def policy_schema() -> dict[str, Any]:
    return schema(PolicyFile, "Keyhop policy file")


def _written(record: Any, before: str = "") -> Iterator[tuple[str, Any]]:
    """Every value that the file gives, under the word the core knows it by."""
    for field in fields_of(type(record)):
        value = getattr(record, field.name)
        word = f"{before}{field.key}"
        if value is None:
            continue
        if isinstance(value, KeySize | Quotas | Bounds | Vendors):
            yield from _written(value, f"{word}.")
        elif word in policy_rules.VALUES or word in policy_rules.LINK_VALUES:
            yield word, _meant(word, value)


def _meant(word: str, value: Any) -> Any:
    """The value in the units of the core."""
    if isinstance(value, Quota):
        rate = None if value.rate_bps is None else int(value.rate_bps)
        return policy_rules.Quota(rate, value.burst_bits, value.requests_per_s, value.requests_burst)
    if isinstance(value, Lifetime):
        duration = None if value.duration_s is None else _nanoseconds(value.duration_s)
        return policy_rules.Lifetime(duration, value.volume_bytes)
    if isinstance(value, Fallback):
        return policy_rules.Fallback(value.verb, _nanoseconds(value.wait_s))
    match word:
        case "rate":
            return int(value)
        case "reserve":
            return value * 8
        case "floor":
            return Fraction(str(value))
        case "bounds.max_epsilon":
            return value.units
        case "bounds.max_age":
            return _nanoseconds(value)
        case "bounds.min_trust":
            return Trust[value.upper()]
    return frozenset(value) if isinstance(value, tuple) else value


def _nanoseconds(duration_s: float) -> int:
    return int(Fraction(repr(duration_s)) * NANOSECONDS)
