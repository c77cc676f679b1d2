"""What a policy decides, in the words of its file: for people who ask why."""

from __future__ import annotations

from fractions import Fraction
from typing import Any

from keyhop.core import epsilon
from keyhop.core.constraints import Constraints
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy_rules import Fallback, Lifetime, Quota, Terms
from keyhop.files.units import BITS, PERIOD, RATE, SIZE


def values(terms: Terms) -> dict[str, Any]:
    """The decided value of each word."""
    bounds = terms.bounds
    return {
        "key_size.default": terms.key_size_bits,
        "key_size.min": terms.min_key_size_bits,
        "key_size.max": terms.max_key_size_bits,
        "lifetime": terms.lifetime,
        "class": terms.service_class,
        "rate": terms.rate_bps or None,
        "burst": terms.burst_bits if terms.rate_bps else None,
        "weight": terms.weight,
        "category": terms.category,
        "fallback": terms.fallback,
        "combine": terms.combine,
        "label": terms.label,
        "quota.application": terms.application_quota,
        "quota.pair": terms.pair_quota,
        **{f"bounds.{word}": value for word, value in demands_of(bounds).items()},
    }


def shown(word: str, value: Any) -> str:
    """As the file would write it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, Lifetime):
        return SIZE.write(value.volume_bytes or 0) if value.duration_ns is None else _seconds(value.duration_ns)
    if isinstance(value, Fallback):
        return f"wait {_seconds(value.wait_ns)}" if value.verb == "wait" else value.verb
    if isinstance(value, Quota):
        parts = (
            [] if value.rate_bps is None else [f"{RATE.write(value.rate_bps)}, burst {BITS.write(value.burst_bits)}"]
        )
        if value.requests_per_s is not None:
            parts.append(f"{value.requests_per_s} requests/s, burst {value.requests_burst}")
        return ", ".join(parts)
    if word.startswith("key_size") or word == "burst":
        return BITS.write(value)
    match word:
        case "rate":
            return RATE.write(value)
        case "bounds.max_epsilon":
            return epsilon.written(value)
        case "bounds.max_age":
            return _seconds(value)
        case "bounds.min_trust":
            return str(value.name.lower())
    return str(value)


def demands_of(bounds: Constraints) -> dict[str, Any]:
    """By the words of the file; None where nothing is demanded."""
    return {
        "max_epsilon": bounds.max_epsilon,
        "its_only": bounds.its_only,
        "max_age": bounds.max_age_ns,
        "vendor.wanted": bounds.vendors_wanted,
        "vendor.refused": bounds.vendors_refused or None,
        "min_vendors": bounds.min_vendors,
        "avoid_node": bounds.avoid_nodes or None,
        "max_hops": bounds.max_hops,
        "rng": bounds.rng,
        "min_trust": bounds.min_trust,
    }


def told(demanded: Constraints) -> dict[str, str]:
    """What every key must show, policy and request together."""
    given = demands_of(demanded).items()
    return {word: shown(f"bounds.{word}", value) for word, value in given if value is not None and value is not False}


def _seconds(duration_ns: int) -> str:
    return PERIOD.write(float(Fraction(duration_ns, NANOSECONDS)))
