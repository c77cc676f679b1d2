"""The answer of the node API to "what would become of this request": which rule decides, and what there is for it."""

from __future__ import annotations

from collections.abc import Mapping
from enum import StrEnum
from typing import Any
from urllib.parse import quote, urlencode

import msgspec

from keyhop.wire.manage import PREFIX, Answer, Pool, Record, Route

EXPLAIN_PATH = f"{PREFIX}/explain"
"""What would become of a request for key; nothing is taken, counted or waited for."""


def explain_path(application: str, peer: str, size_bits: int | None, extensions: Mapping[str, Any]) -> str:
    """`extensions`: the mandatory ones of the request, as 014 writes them."""
    query: dict[str, Any] = {} if size_bits is None else {"size": size_bits}
    if extensions:
        query["extensions"] = msgspec.json.encode(extensions)
    ends = f"{quote(application, safe='')}/{quote(peer, safe='')}"
    return f"{EXPLAIN_PATH}/{ends}" + (f"?{urlencode(query)}" if query else "")


class Place(Record, frozen=True, gc=False, kw_only=True):
    """Where something was decided."""

    rule: str
    """Name of a rule, `default` or `built in`."""
    file: str | None = None
    line: int | None = None

    def __str__(self) -> str:
        return f"{self.rule} ({self.file}:{self.line})" if self.file else self.rule


class Decided(Record, frozen=True, gc=False, kw_only=True):
    value: str
    """As a policy file would write it."""
    decided_by: Place


class KeyLabel(Record, frozen=True, gc=False, kw_only=True):
    """What is known of a key; nothing of its bits."""

    grade: str
    epsilon: float | None = None
    """None: none is claimed."""
    age_s: float
    hops: int
    paths: tuple[tuple[str, ...], ...]
    vendors: tuple[str, ...]
    trust: str


class Outcome(StrEnum):
    GIVEN = "given"
    LEASED = "leased"
    """Given once it is reserved at both ends, which takes one exchange."""
    WAITS = "waits"
    FALLS_BACK = "falls_back"
    """Made as the policy's `fallback` says."""
    REFUSED = "refused"


class Supply(Record, frozen=True, gc=False, kw_only=True):
    """What the network has for a request at this moment."""

    node: str
    """Which was asked: the one that serves the application."""
    peer_node: str
    outcome: Outcome
    reason: str = ""
    """Why it is not simply given, as a sentence."""
    unmet: tuple[dict[str, str], ...] = ()
    """The demands that the nearest of the stored keys fails, as a refusal would say it; empty if one meets all."""
    route: Route | None = None
    """The way that key for this peer takes now; None where both are at one node."""
    pool: Pool | None = None
    in_hand_bytes: int = 0
    """Reserved at both ends and meeting the demands."""
    leasable_bytes: int = 0
    """Not reserved yet and meeting them."""
    label: KeyLabel | None = None
    """Of the key that would come next; where none meets the demands, of the oldest."""


class ExplainAnswer(Answer, frozen=True, gc=False, kw_only=True):
    application: str
    peer: str
    rule: Place
    refused: str | None = None
    """By the rules, whatever the network has."""
    details: tuple[dict[str, Any], ...] = ()
    key_size_bits: int | None = None
    demands: dict[str, str]
    """What every key must show, policy and request together."""
    values: dict[str, Decided]
    network: Supply | None = None
    """None where the rules refuse the request, or no node was asked."""
    not_asked: str = ""
    """Why no node was."""
