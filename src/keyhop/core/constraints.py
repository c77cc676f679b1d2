"""What an application demands of a key: read from its request, and held against the label of each key."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, NamedTuple

from keyhop.core import epsilon as epsilons
from keyhop.core.label import Entropy, Grade, Label, Trust
from keyhop.core.model import NANOSECONDS, Refusal, RequestError

PREFIX = "keyhop_"
LABEL = "keyhop_label"
"""Demands nothing: says whether the label of each key is to be told."""
NAMES_LIMIT = 64
"""Nodes or vendors in one list."""
NAME_LIMIT_CHARACTERS = 128
NUMBER_LIMIT = 1000
"""Hops and vendors: no network has more."""
AGE_LIMIT_S = 100 * 365 * 86_400
SHOWN_BELOW = 10**15
"""A number with more digits might be a key."""
EXTENSIONS_LIMIT = 64
"""Parameters in one request."""

UNSUPPORTED = "not all extension_mandatory parameters are supported"
UNMET = "not all extension_mandatory request options could be met"
"""Letter for letter as ETSI GS QKD 014 V1.1.1, clause 6 has them: clients compare them."""
UNSUPPORTED_DETAIL = "extension_mandatory_unsupported"
UNMET_DETAIL = "extension_mandatory_unmet"


@dataclass(frozen=True, slots=True, kw_only=True)
class Constraints:
    """Bounds on a key; what is None or empty demands nothing."""

    max_epsilon: int | None = None
    """In units of 10^-40, rounded down."""
    its_only: bool = False
    max_age_ns: int | None = None
    vendors_wanted: frozenset[str] | None = None
    """Every module behind the key is of one of these."""
    vendors_refused: frozenset[str] = frozenset()
    min_vendors: int | None = None
    """So many must fail together before the key is known."""
    avoid_nodes: frozenset[str] = frozenset()
    max_hops: int | None = None
    rng: frozenset[Entropy] | None = None
    """Randomness from these sources alone."""
    min_trust: Trust | None = None

    @property
    def demands_nothing(self) -> bool:
        return self == NO_CONSTRAINTS


NO_CONSTRAINTS = Constraints()


class Asked(NamedTuple):
    """The extensions of one request."""

    required: Constraints
    preferred: Constraints
    """Kept where it costs nothing: a key that does not meet them may still be given."""
    ignored: tuple[str, ...]
    """Optional names that nobody here knows."""
    labelled: bool = False
    """Whether the answer is to say what is known of each key: whoever uses an extension of ours is told, unless it
    says `keyhop_label: false`."""

    @property
    def asks_nothing(self) -> bool:
        return self.required is NO_CONSTRAINTS and self.preferred is NO_CONSTRAINTS and not self.labelled


class Unmet(NamedTuple):
    """One demand that a key does not meet."""

    name: str
    """As the request writes it: `keyhop_max_hops`."""
    why: str


class ExtensionError(RequestError):
    """An extension that is not understood, or not in the form it must have: 400 with what would be legal."""


def parse(
    mandatory: Sequence[Mapping[str, Any]] | None = None, optional: Sequence[Mapping[str, Any]] | None = None
) -> Asked:
    """The extension objects of a request, each with one name or several. Raises ExtensionError.

    014 lets optional parameters be ignored, but a known one in a wrong form is a mistake that its writer should see.
    """
    required, unknown = _members(mandatory, "extension_mandatory")
    preferred, ignored = _members(optional, "extension_optional")
    if unknown:
        details = tuple({UNSUPPORTED_DETAIL: name} for name in unknown)
        raise ExtensionError(Refusal.UNSUPPORTED, UNSUPPORTED, details)
    labelled = bool(required or preferred)
    for members in (preferred, required):
        if LABEL in members:
            labelled = _flag(LABEL, members.pop(LABEL))["label"]
    return Asked(_constraints(required), _constraints(preferred), tuple(ignored), labelled)


def admits(key: Label, demanded: Constraints, now: int) -> tuple[Unmet, ...]:
    """Every demand that a key of this label does not meet; empty: it may be given."""
    if demanded is NO_CONSTRAINTS:
        return ()
    return tuple(
        Unmet(PREFIX + name, why) for name, check in _CHECKS.items() if (why := check(key, demanded, now)) is not None
    )


def check(key: Label, demanded: Constraints, now: int) -> None:
    """Raises RequestError with every demand that is not met: nothing is watered down."""
    if unmet := admits(key, demanded, now):
        raise refusal(unmet)


def refusal(unmet: Sequence[Unmet]) -> RequestError:
    return RequestError(Refusal.UNSUPPORTED, UNMET, tuple({UNMET_DETAIL: one.name, "reason": one.why} for one in unmet))


def both(one: Constraints, other: Constraints) -> Constraints:
    """The demands of both, such as those of a policy and of a request: the stricter of each."""
    if one is NO_CONSTRAINTS or other is NO_CONSTRAINTS:
        return other if one is NO_CONSTRAINTS else one
    return Constraints(
        max_epsilon=_least(one.max_epsilon, other.max_epsilon),
        its_only=one.its_only or other.its_only,
        max_age_ns=_least(one.max_age_ns, other.max_age_ns),
        vendors_wanted=_common(one.vendors_wanted, other.vendors_wanted),
        vendors_refused=one.vendors_refused | other.vendors_refused,
        min_vendors=_most(one.min_vendors, other.min_vendors),
        avoid_nodes=one.avoid_nodes | other.avoid_nodes,
        max_hops=_least(one.max_hops, other.max_hops),
        rng=_common(one.rng, other.rng),
        min_trust=_most(one.min_trust, other.min_trust),
    )


def contradiction(demanded: Constraints) -> str:
    """Why no key whatever could meet these demands together; empty where one might."""
    wanted = demanded.vendors_wanted
    if wanted is not None:
        left = wanted - demanded.vendors_refused
        if not left:
            return "no vendor is both wanted and not refused"
        if demanded.min_vendors is not None and demanded.min_vendors > len(left):
            return f"{demanded.min_vendors} vendors are demanded, and only {len(left)} are wanted"
    if demanded.rng is not None and not demanded.rng:
        return "no entropy source is left"
    return ""


# What may stand in a request.


def _members(objects: Sequence[Mapping[str, Any]] | None, where: str) -> tuple[dict[str, Any], list[str]]:
    """(known members, unknown names)"""
    known: dict[str, Any] = {}
    unknown: list[str] = []
    for members in objects or ():
        for name, value in members.items():
            if name in known:
                raise _wrong(f"{name} stands twice in {where}", "write it once")
            if name not in _READERS and name != LABEL:
                unknown.append(name)
            else:
                known[name] = value
            if len(known) + len(unknown) > EXTENSIONS_LIMIT:
                raise _wrong(f"{where} has more than {EXTENSIONS_LIMIT} parameters", "write fewer")
    return known, unknown


def _constraints(members: Mapping[str, Any]) -> Constraints:
    if not members:
        return NO_CONSTRAINTS
    read: dict[str, Any] = {}
    for name, value in members.items():
        read |= _READERS[name](name, value)
    made = Constraints(**read)
    if why := contradiction(made):
        raise _wrong(why, "demand what some key can meet")
    return NO_CONSTRAINTS if made == NO_CONSTRAINTS else made


def _wrong(what: str, legal: str) -> ExtensionError:
    return ExtensionError(Refusal.BAD_REQUEST, f"{what}: {legal}")


def _form(name: str, value: Any, legal: str) -> ExtensionError:
    """Texts are not repeated: a client that mixed up its fields may have sent a key here."""
    if value is None:
        stands = "null"
    elif isinstance(value, bool):
        stands = str(value).lower()
    elif isinstance(value, int | float):
        stands = str(value) if abs(value) < SHOWN_BELOW else "a number out of range"
    else:
        stands = "a text" if isinstance(value, str) else "a list" if isinstance(value, list) else "an object"
    return _wrong(f"{name} = {stands}", f"must be {legal}")


def _epsilon(name: str, value: Any) -> dict[str, Any]:
    legal = f'a number such as 1e-10, or a text such as "1e-10", from 1e-{epsilons.DIGITS} to 1'
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        raise _form(name, value, legal)
    try:
        return {"max_epsilon": epsilons.bound(value)}
    except ValueError:
        raise _form(name, value, legal) from None


def _flag(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, bool):
        raise _form(name, value, "true or false")
    return {name.removeprefix(PREFIX): value}


def _age(name: str, value: Any) -> dict[str, Any]:
    legal = f"seconds, above 0 and at most {AGE_LIMIT_S}"
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise _form(name, value, legal)
    if not 0 < value <= AGE_LIMIT_S:
        raise _form(name, value, legal)
    return {"max_age_ns": int(Fraction(repr(value)) * NANOSECONDS)}


def _count(low: int) -> Callable[[str, Any], dict[str, Any]]:
    def read(name: str, value: Any) -> dict[str, Any]:
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= NUMBER_LIMIT:
            raise _form(name, value, f"a whole number from {low} to {NUMBER_LIMIT}")
        return {name.removeprefix(PREFIX): value}

    return read


def _names(name: str, value: Any) -> frozenset[str]:
    listed = [value] if isinstance(value, str) else value
    legal = f"a name, or a list of 1 to {NAMES_LIMIT} names"
    if not isinstance(listed, list) or not 1 <= len(listed) <= NAMES_LIMIT:
        raise _form(name, value, legal)
    for one in listed:
        if not isinstance(one, str) or not 1 <= len(one) <= NAME_LIMIT_CHARACTERS:
            raise _form(name, value, f"{legal}, each of 1 to {NAME_LIMIT_CHARACTERS} characters")
    return frozenset(listed)


def _vendor(name: str, value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        return {"vendors_wanted": _names(name, value)}
    if not value or not value.keys() <= {"wanted", "refused"}:
        raise _form(name, value, 'a name, a list of names, or {"wanted": …, "refused": …}')
    return {f"vendors_{which}": _names(f"{name}.{which}", listed) for which, listed in value.items()}


def _avoid(name: str, value: Any) -> dict[str, Any]:
    return {"avoid_nodes": _names(name, value)}


def _rng(name: str, value: Any) -> dict[str, Any]:
    listed, known = _names(name, value), frozenset(Entropy)
    if not listed <= known:
        raise _form(name, value, f"one or more of {', '.join(sorted(known))}")
    return {"rng": frozenset(map(Entropy, listed))}


def _trust(name: str, value: Any) -> dict[str, Any]:
    known = {trust.name.lower(): trust for trust in Trust}
    if not isinstance(value, str) or value not in known:
        raise _form(name, value, f"one of {', '.join(known)}")
    return {"min_trust": known[value]}


_READERS: Mapping[str, Callable[[str, Any], dict[str, Any]]] = {
    "keyhop_max_epsilon": _epsilon,
    "keyhop_its_only": _flag,
    "keyhop_max_age": _age,
    "keyhop_vendor": _vendor,
    "keyhop_min_vendors": _count(1),
    "keyhop_avoid_node": _avoid,
    "keyhop_max_hops": _count(0),
    "keyhop_rng": _rng,
    "keyhop_min_trust": _trust,
}

NAMES: tuple[str, ...] = (*_READERS, LABEL)
"""Every extension of ours that a request may carry."""


# What a key must show.


def _check_epsilon(key: Label, demanded: Constraints, now: int) -> str | None:
    if demanded.max_epsilon is None:
        return None
    claimed = key.epsilon
    if claimed is None:
        if key.grade is not Grade.ITS:
            return f"the key is {key.grade}: no epsilon is claimed for it"
        return "a module behind the key declares no epsilon"
    if claimed > demanded.max_epsilon:
        return f"epsilon {epsilons.shown(claimed)} is above {epsilons.shown(demanded.max_epsilon, down=True)}"
    return None


def _check_its(key: Label, demanded: Constraints, now: int) -> str | None:
    return f"the key is {key.grade}" if demanded.its_only and key.grade is not Grade.ITS else None


def _check_age(key: Label, demanded: Constraints, now: int) -> str | None:
    if demanded.max_age_ns is None or key.age_ns(now) <= demanded.max_age_ns:
        return None
    return f"the oldest bits are {_seconds(key.age_ns(now))} old, above {_seconds(demanded.max_age_ns)}"


def _check_vendor(key: Label, demanded: Constraints, now: int) -> str | None:
    if refused := key.vendors & demanded.vendors_refused:
        return f"a module of {_listed(refused)} is behind the key"
    if demanded.vendors_wanted is None:
        return None
    if other := key.vendors - demanded.vendors_wanted:
        return f"a module of {_listed(other)} is behind the key, which is not wanted"
    return None if key.vendors else "no module of a wanted vendor is behind the key"


def _check_min_vendors(key: Label, demanded: Constraints, now: int) -> str | None:
    if demanded.min_vendors is None or key.min_vendors >= demanded.min_vendors:
        return None
    return f"vendors that must fail together before the key is known: {key.min_vendors}, below {demanded.min_vendors}"


def _check_nodes(key: Label, demanded: Constraints, now: int) -> str | None:
    on_the_way = demanded.avoid_nodes & key.nodes
    return f"the key was at {_listed(on_the_way)}" if on_the_way else None


def _check_hops(key: Label, demanded: Constraints, now: int) -> str | None:
    if demanded.max_hops is None or key.hops <= demanded.max_hops:
        return None
    return f"{key.hops} hops, above {demanded.max_hops}"


def _check_rng(key: Label, demanded: Constraints, now: int) -> str | None:
    other = key.rng - demanded.rng if demanded.rng is not None else frozenset()
    return f"randomness of {_listed(source.value for source in other)} is in the key" if other else None


def _check_trust(key: Label, demanded: Constraints, now: int) -> str | None:
    if demanded.min_trust is None or key.trust >= demanded.min_trust:
        return None
    return f"trust is {key.trust.name.lower()}, below {demanded.min_trust.name.lower()}"


_CHECKS: Mapping[str, Callable[[Label, Constraints, int], str | None]] = {
    "max_epsilon": _check_epsilon,
    "its_only": _check_its,
    "max_age": _check_age,
    "vendor": _check_vendor,
    "min_vendors": _check_min_vendors,
    "avoid_node": _check_nodes,
    "max_hops": _check_hops,
    "rng": _check_rng,
    "min_trust": _check_trust,
}


def _listed(names: Any) -> str:
    return ", ".join(sorted(names))


def _seconds(duration_ns: int) -> str:
    return f"{duration_ns / NANOSECONDS:g} s"


def _least(one: int | None, other: int | None) -> int | None:
    return other if one is None else one if other is None else min(one, other)


def _most(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else max(one, other)


def _common(one: Any, other: Any) -> Any:
    return other if one is None else one if other is None else one & other
