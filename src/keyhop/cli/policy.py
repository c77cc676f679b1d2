"""`keyhop policy`: what a policy file decides, and which of its rules did."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from keyhop.cli import output
from keyhop.cli.figures import counted
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import FILE, common_options

if TYPE_CHECKING:
    from collections.abc import Mapping

    from keyhop.core.constraints import Constraints
    from keyhop.core.policy_rules import Place, Policy, Terms, Value
    from keyhop.daemon.configuration import NodeFile

POLICY_NAME = "policy.yml"
"""Beside the node file."""


@click.group()
def policy() -> None:
    """Which applications get what: sizes, classes, quotas, bounds, and what happens when key is short.

    \b
    Example:
      keyhop policy explain sae-alice sae-bob --size 256
    """


@policy.command("check")
@click.argument("file", type=FILE, default=POLICY_NAME)
@common_options
def check(file: Path) -> None:
    """Check a policy file. Exit code 2 with every problem and its line if it is not right.

    \b
    Example:
      keyhop policy check policy.yml
    """
    found = _load(file, None)
    answer = {
        "apiVersion": output.API_VERSION,
        "file": str(file),
        "valid": True,
        "rules": [rule.name for rule in found.rules],
        "links": len(found.links),
    }
    output.emit(answer, lambda: f"{file}: valid policy file, {summary(found)}")


@policy.command("explain")
@click.argument("application")
@click.argument("peer")
@click.option("--size", type=click.IntRange(1), metavar="BITS", help="Key size asked for; none if not given.")
@click.option(
    "--extension",
    "extensions",
    multiple=True,
    metavar="NAME=JSON",
    help="A mandatory extension of the request, such as keyhop_max_hops=2. Repeat for more.",
)
@click.option(
    "--policy", "file", type=FILE, help="Policy file; else that of the node file, or policy.yml beside it, or here."
)
@click.option("--config", "node_file", type=FILE, help="Node file: its limits and applications count, too.")
@common_options
def explain(
    application: str,
    peer: str,
    size: int | None,
    extensions: tuple[str, ...],
    file: Path | None,
    node_file: Path | None,
) -> None:
    """What becomes of a request of APPLICATION for a key to share with PEER, and which rule decided each value.

    \b
    Example:
      keyhop policy explain vpn-1 vpn-2 --size 256 --extension keyhop_max_hops=2
    """
    from keyhop.core.constraints import parse
    from keyhop.core.model import RequestError

    node, limits = _node(node_file) if node_file else (None, None)
    named = node_file.parent / node.policy if node_file and node and node.policy else None
    found = _load(file or named or (node_file.parent if node_file else Path()) / POLICY_NAME, limits)
    terms = found.terms(application, peer)
    members = dict(_member(text) for text in extensions)
    refused, key_size, demanded = "", None, terms.bounds
    details: tuple[dict[str, Any], ...] = ()
    try:
        _entitled(node, application, peer)
        asked = parse([members]).required
        key_size = terms.key_size(size)
        demanded = terms.demands(asked)
    except RequestError as error:
        refused, details = error.message, error.details
    answer: dict[str, Any] = {
        "apiVersion": output.API_VERSION,
        "application": application,
        "peer": peer,
        "rule": _place(terms.rule),
        "refused": refused or None,
        "details": list(details),
        "key_size_bits": key_size,
        "demands": told(demanded),
        "values": {
            word: {"value": shown(word, value), "decided_by": _place(terms.places[word])}
            for word, value in values(terms).items()
        },
    }
    output.emit(answer, lambda: _table(application, peer, terms, answer))


def summary(found: Policy) -> str:
    return f"{counted(len(found.rules), 'rule')}, {counted(len(found.links), 'link rule')}"


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
        **{f"bounds.{word}": value for word, value in _demands(bounds).items()},
    }


def shown(word: str, value: Any) -> str:
    """As the file would write it."""
    from keyhop.core import epsilon, policy_rules
    from keyhop.core.model import NANOSECONDS
    from keyhop.files.units import BITS, PERIOD, RATE, SIZE

    def seconds(duration_ns: int) -> str:
        return PERIOD.write(float(Fraction(duration_ns, NANOSECONDS)))

    if value is None:
        return "none"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, frozenset):
        return ", ".join(sorted(value))
    if isinstance(value, policy_rules.Lifetime):
        return SIZE.write(value.volume_bytes or 0) if value.duration_ns is None else seconds(value.duration_ns)
    if isinstance(value, policy_rules.Fallback):
        return f"wait {seconds(value.wait_ns)}" if value.verb == "wait" else value.verb
    if isinstance(value, policy_rules.Quota):
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
            return seconds(value)
        case "bounds.min_trust":
            return str(value.name.lower())
    return str(value)


def _demands(bounds: Constraints) -> dict[str, Any]:
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
    given = _demands(demanded).items()
    return {word: shown(f"bounds.{word}", value) for word, value in given if value is not None and value is not False}


def _table(application: str, peer: str, terms: Terms, answer: dict[str, Any]) -> str:
    if answer["refused"]:
        verdict = f"refused: {answer['refused']}"
        verdict += "".join(f"\n  {', '.join(map(str, detail.values()))}" for detail in answer["details"])
    else:
        verdict = f"a key of {answer['key_size_bits']} bit"
    lines = [f"{application} -> {peer}: {verdict}", f"rule: {terms.rule}"]
    if answer["demands"]:
        lines.append("demands: " + "; ".join(f"{word} {text}" for word, text in answer["demands"].items()))
    rows = [(word, one["value"], str(terms.places[word])) for word, one in answer["values"].items()]
    return "\n".join([*lines, "", output.table(("word", "value", "decided by"), rows)])


def _place(place: Place) -> dict[str, Any]:
    return {"rule": place.rule, "file": place.file or None, "line": place.line or None}


def _member(text: str) -> tuple[str, Any]:
    import msgspec

    name, equals, value = text.partition("=")
    if not equals or not name:
        fail(f"--extension {text!r} has no value", "", "write NAME=JSON, such as keyhop_max_hops=2", ExitCode.USAGE)
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        # A word without quotes is meant as a text: a shell takes the quotes away.
        return name, value


def _load(file: Path, limits: Mapping[str, Value] | None) -> Policy:
    from keyhop.files import FileError
    from keyhop.files.policy import load_policy

    try:
        return load_policy(file, limits)
    except FileError as error:
        output.refuse_file(error, "see: keyhop config schema policy")


def _node(file: Path) -> tuple[NodeFile, dict[str, Value]]:
    from keyhop.daemon.configuration import load_node_file
    from keyhop.daemon.policies import limits_of
    from keyhop.emulator.module import DRIVERS
    from keyhop.files import FileError

    try:
        node = load_node_file(file, DRIVERS)
    except FileError as error:
        output.refuse_file(error, "see: keyhop config schema node")
    return node, limits_of(node, file)


def _entitled(node: NodeFile | None, application: str, peer: str) -> None:
    """As far as the node file can say. Raises RequestError."""
    from keyhop.core.model import Refusal, RequestError

    if node is None:
        return
    entry = next((entry for entry in node.applications if entry.id == application), None)
    if entry is None:
        raise RequestError(Refusal.NOT_AUTHORISED, f"{application} is no application of node {node.node.id}")
    if peer not in entry.peers and not (peer == application and entry.self_association):
        raise RequestError(
            Refusal.NOT_AUTHORISED, f"{application} may not share keys with {peer} (applications: peers)"
        )
