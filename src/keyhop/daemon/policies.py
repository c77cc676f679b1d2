"""The policy of a node: its file with the node's own limits, and what of it this version cannot do."""

from __future__ import annotations

from pathlib import Path

from keyhop.core.policy_rules import LINK_VALUES, VALUES, Place, Policy, Value
from keyhop.daemon.configuration import NodeFile
from keyhop.files.lines import lines_of
from keyhop.files.policy import load_policy

LIMITS = {"default": "key_size", "min": "min_key_size", "max": "max_key_size"}

UNDONE: dict[str, dict[object, str]] = {
    "full_store": {
        "drop_new": "modules are not told to stop, so that this is the same: write stop",
        "replace_oldest": "only what is past its lifetime is destroyed yet: write stop, and set lifetimes.block",
    },
}
"""Words that nodes do not follow: they are refused, so that nobody relies on them."""


class PolicyError(Exception):
    """A policy that is right, and that this version of a node cannot carry out."""


def limits_of(node: NodeFile, path: Path | None = None) -> dict[str, Value]:
    """The key sizes of the node file, by the words of policies; with `path` each knows its line."""
    lines = lines_of(path.read_bytes()) if path is not None else {}
    found = {}
    for word, key in LIMITS.items():
        line = lines.get(f"limits.{key}", 0)
        place = Place("limits", str(path) if line else "", line)
        found[f"key_size.{word}"] = Value(getattr(node.limits, f"{key}_bits"), place)
    return found


def check(policy: Policy) -> None:
    """Raises PolicyError, naming the line, for a value that nodes do not follow."""
    for rule in (*policy.rules, policy.default):
        for word, value in rule.values.items():
            _check(word, value)
    for link in policy.links:
        for word, value in link.values.items():
            _check(word, value)


def node_policy(node: NodeFile, path: Path) -> Policy:
    """Raises keyhop.files.FileError or PolicyError."""
    policy = load_policy(path, limits_of(node))
    check(policy)
    return policy


def needs_exchange(policy: Policy) -> bool:
    terms = [policy.terms_of(rule) for rule in (*policy.rules, policy.default)]
    return any(one.combine != "none" or one.fallback.verb == "hybrid" for one in terms)


def _check(word: str, value: Value) -> None:
    assert word in VALUES or word in LINK_VALUES, word
    meant = getattr(value.value, "verb", value.value)
    for undone, why in UNDONE.get(word, {}).items():
        if meant == undone:
            raise PolicyError(f"{value.place}: {word}: {undone} has no effect on nodes: {why}")
