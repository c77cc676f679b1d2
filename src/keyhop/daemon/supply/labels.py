"""What answers say of keys: their labels, and how long they may be used."""

from __future__ import annotations

from typing import Any

from keyhop.core.label import Label, described
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy_rules import Lifetime


def told(key: Label, wall_now: int, lifetime: Lifetime | None) -> dict[str, Any]:
    """The `key_extension` of a key."""
    members = described(key, wall_now)
    if lifetime is not None and lifetime.duration_ns is not None:
        members["keyhop_lifetime_s"] = lifetime.duration_ns // NANOSECONDS
    if lifetime is not None and lifetime.volume_bytes is not None:
        members["keyhop_lifetime_bytes"] = lifetime.volume_bytes
    return members
