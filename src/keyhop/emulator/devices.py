"""What a topology means on this machine: the emulated module of each link, and what it gives."""

from __future__ import annotations

from keyhop.emulator.lab import LabError
from keyhop.emulator.network import Plan, PlannedLink, PlannedNode
from keyhop.emulator.rates import BLOCK_MAX_BYTES, KeyRate, presets, steady
from keyhop.simulator.topology import POOL, Link, Topology

PREFILL_S = 3600.0
"""The modules have run so long before the lab began."""
PREFILL_MIN_BYTES = 64 * 1024
PREFILL_MAX_BYTES = 512 * 1024
STOCK_MIN_BYTES = 16 * 1024

WITHOUT_QBER = frozenset({"cv-gg02"})
"""Continuous variables: excess noise takes the place of the error rate."""


def plan(topology: Topology, *, prefilled: bool = True) -> Plan:
    """Raises LabError for a network that cannot be emulated, naming the link."""
    pools = {link.pool.max_bytes for link in topology.links if link.pool.max_bytes and link.pool != POOL}
    return Plan(
        name=topology.name,
        title=topology.title,
        nodes=tuple(
            PlannedNode(id=node.id, label=node.label, at=node.at, applications=node.applications)
            for node in topology.nodes.values()
        ),
        links=tuple(planned_link(link, prefilled=prefilled) for link in topology.links),
        # A node has one limit for all its links; a pool is both directions together.
        stock_bytes=max(STOCK_MIN_BYTES, *(pool // 2 for pool in pools)) if pools else None,
    )


def planned_link(link: Link, *, prefilled: bool = True) -> PlannedLink:
    rate = key_rate(link)
    prefill = min(PREFILL_MAX_BYTES, max(PREFILL_MIN_BYTES, int(rate.skr_bps * PREFILL_S / 8)))
    return PlannedLink(
        id=link.id,
        ends=link.ends,
        block_bytes=rate.block_bits // 8,
        block_period_s=rate.block_period_s,
        qber_ratio=rate.qber_ratio,
        qber_limit_ratio=link.qber_limit,
        has_qber=link.protocol not in WITHOUT_QBER,
        epsilon=rate.epsilon,
        prefill_bytes=prefill if prefilled and rate.block_bits else 0,
        protocol=link.protocol,
        length_km=link.length_km,
    )


def key_rate(link: Link) -> KeyRate:
    """The rate the topology gives, exactly; else what the link's model computes from its loss.

    A QBER that is not given is the model's. Raises LabError where neither can be had.
    """
    if link.passes is not None:
        raise LabError(f"link {link.id} gives key only while a satellite passes", "give it a rate and no passes")
    model = presets().get(link.model)
    if model is None:
        raise LabError(f"link {link.id} has the model {link.model!r}", f"there are {', '.join(sorted(presets()))}")
    if link.rate_bps is None and link.loss_db is None:
        raise LabError(f"link {link.id} has no rate, and nothing to compute it from", "give rate, length or loss")
    computed = model.at(link.loss_db or 0.0)
    if link.rate_bps is not None:
        try:
            computed = steady(link.rate_bps, computed.qber_ratio)
        except ValueError as error:
            raise LabError(f"link {link.id}: {error}", "give a higher rate, or none to compute it") from None
    if link.qber is not None:
        computed = computed._replace(qber_ratio=link.qber)
    # One block of a fast link is more than a node takes in at once: it is handed over in equal parts.
    parts = -(-computed.block_bits // (8 * BLOCK_MAX_BYTES)) or 1
    return computed._replace(block_bits=computed.block_bits // parts, block_period_s=computed.block_period_s / parts)
