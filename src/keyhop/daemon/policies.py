"""The policy of a node: its file, with the node's own limits where it says nothing."""

from __future__ import annotations

from pathlib import Path

from keyhop.core.policy_rules import Place, Policy, Value
from keyhop.daemon.configuration import NodeFile
from keyhop.files.lines import lines_of
from keyhop.files.policy import load_policy

LIMITS = {"default": "key_size", "min": "min_key_size", "max": "max_key_size"}


def limits_of(node: NodeFile, path: Path | None = None) -> dict[str, Value]:
    """The key sizes of the node file, by the words of policies; with `path` each knows its line."""
    lines = lines_of(path.read_bytes()) if path is not None else {}
    found = {}
    for word, key in LIMITS.items():
        line = lines.get(f"limits.{key}", 0)
        place = Place("limits", str(path) if line else "", line)
        found[f"key_size.{word}"] = Value(getattr(node.limits, f"{key}_bits"), place)
    return found


def node_policy(node: NodeFile, path: Path) -> Policy:
    """Raises keyhop.files.FileError."""
    return load_policy(path, limits_of(node))


def needs_exchange(policy: Policy) -> bool:
    terms = [policy.terms_of(rule) for rule in (*policy.rules, policy.default)]
    return any(one.combine != "none" or one.fallback.verb == "hybrid" for one in terms)
