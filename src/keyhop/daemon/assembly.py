"""From the node file to what the core is told: neighbours, applications, lifetimes, first contact with new links."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import structlog

from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.pair import NO_LINK
from keyhop.core.node.rows import PairRow
from keyhop.core.node.store import Snapshot
from keyhop.core.policy_rules import Policy
from keyhop.daemon import linkkey
from keyhop.daemon.configuration import NodeFile, Quota, link_id
from keyhop.daemon.linkkey import LinkKey, LinkKeyError, LinkKeyUsed

NO_LIMIT_BITS = 1 << 40
NO_LIMIT_REQUESTS = 1 << 30

_log = structlog.get_logger("keyhop.node")


class StartError(Exception):
    """The node cannot start; the text says what is wrong and what to do."""


def links_in_store(snapshot: Snapshot) -> dict[str, bytes]:
    """Neighbour -> number of its link. A pair that met by relay has none, also if a link between them is new."""
    rows = (row for row in snapshot.rows if isinstance(row, PairRow))
    return {row.peer: row.link for row in rows if row.link != NO_LINK}


def first_contacts(file: NodeFile, known: Mapping[str, bytes], path_of: Callable[[Any], Path]) -> dict[str, LinkKey]:
    """The secrets of links that the store does not know yet, by neighbour. Raises StartError.

    A file whose secret is in the store already is overwritten: the last start was broken off before it could.
    """
    found: dict[str, LinkKey] = {}
    for link in file.links:
        if link.first_contact is None:
            if link.to in known or any(other.to == link.to and other.first_contact for other in file.links):
                continue
            raise StartError(
                f"links: {link.to}: the store does not know it and no first_contact file is given; "
                f"make one with `keyhop link key {file.node.id} {link.to}` and give it to both nodes"
            )
        path = path_of(link.first_contact)
        if link.to in known:
            _consume_if_loaded(path, known[link.to])
        elif link.to not in found:
            found[link.to] = _read(path, file.node.id, link.to)
    return found


def _read(path: Path, own: str, peer: str) -> LinkKey:
    try:
        key = linkkey.read(path)
    except LinkKeyError as error:
        raise StartError(f"links: {peer}: first_contact {error}") from None
    if {key.lower, key.higher} != {own, peer}:
        key.wipe()
        raise StartError(f"links: {peer}: first_contact {path} is for {key.lower} and {key.higher}")
    return key


def _consume_if_loaded(path: Path, number: bytes) -> None:
    try:
        key = linkkey.read(path)
        key.wipe()
        if key.number == number:
            linkkey.consume(path)
    except LinkKeyUsed:
        return
    except LinkKeyError as error:
        # Taken away after it was used, as it should be; or read-only, and then somebody else has to destroy it.
        if path.exists():
            _log.warning("first_contact_not_overwritten", reason=str(error))


def node_settings(file: NodeFile, links: Mapping[str, bytes], policy: Policy | None = None) -> NodeSettings:
    """`links` has the link number of each neighbour."""
    limits = file.limits
    rates: dict[str, int] = {}
    for link in file.links:
        rates[link.to] = rates.get(link.to, 0) + int(getattr(link.settings, "rate_bps", 0) or 0)
    return NodeSettings(
        node=NodeId(file.node.id),
        neighbours=tuple(
            Neighbour(
                node=NodeId(peer),
                link=links[peer],
                rate_bps=rate_bps,
            )
            for peer, rate_bps in rates.items()
        ),
        applications=tuple(
            Application(
                id=AppId(entry.id),
                peers=frozenset(AppId(peer) for peer in entry.peers),
                self_association=entry.self_association,
                **_quota(entry.quota),
            )
            for entry in file.applications
        ),
        directory={AppId(app): NodeId(node) for app, node in file.directory.items()},
        fetch_lifetime_ns=int(file.lifetimes.fetch_s * NANOSECONDS),
        block_lifetime_ns=int(file.lifetimes.block_s * NANOSECONDS),
        stock_limit_bytes=limits.stock_bytes,
        default_key_bits=limits.key_size_bits,
        min_key_bits=limits.min_key_size_bits,
        max_key_bits=limits.max_key_size_bits,
        keys_per_request=limits.keys_per_request,
        horizon_hops=limits.horizon_hops,
        controller=NodeId(file.controller) if file.controller else None,
        policy=policy,
        link_names={link.to: link_id(file.node.id, link) for link in reversed(file.links)},
    )


def _quota(quota: Quota) -> dict[str, int]:
    """A burst without a rate would be spent once and for all: no rate, no limit."""
    bits = (NO_LIMIT_BITS, NO_LIMIT_BITS) if quota.rate_bps is None else (int(quota.rate_bps), quota.burst_bits)
    requests = (NO_LIMIT_REQUESTS, NO_LIMIT_REQUESTS)
    if quota.requests_per_s is not None:
        requests = (int(quota.requests_per_s), quota.requests_burst)
    return dict(zip(("rate_bps", "burst_bits", "requests_per_s", "burst_requests"), (*bits, *requests), strict=True))
