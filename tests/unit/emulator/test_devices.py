import dataclasses

import pytest

from keyhop.emulator import devices
from keyhop.emulator.lab import LabError
from keyhop.emulator.rates import BLOCK_MAX_BYTES, presets
from keyhop.simulator.topology import POOL, Link, Node, Topology
from keyhop.simulator.topology_file import PassesEntry, PoolEntry, Protocol

LINK = Link(
    id="STP-BRT", ends=("STP", "BRT"), length_km=82.0, loss_db=16.4, rate_bps=600.0, qber=None, qber_limit=0.11,
    protocol=Protocol.COW, model="cow", pool=POOL,
)  # fmt: skip


def topology(*links: Link) -> Topology:
    nodes = {name: Node(id=name, label=name, at=None) for link in links for name in link.ends}
    return Topology(name="t", title="T", nodes=nodes, links=links)


def test_a_rate_that_is_given_is_kept_and_the_qber_is_the_models() -> None:
    planned = devices.planned_link(LINK)
    assert planned.block_bytes * 8 / planned.block_period_s == pytest.approx(600)
    assert planned.qber_ratio == presets()["cow"].at(16.4).qber_ratio


def test_a_qber_that_is_given_is_kept() -> None:
    assert devices.planned_link(dataclasses.replace(LINK, qber=0.05)).qber_ratio == 0.05


def test_without_a_rate_the_model_gives_block_period_and_epsilon() -> None:
    link = dataclasses.replace(LINK, rate_bps=None, loss_db=10.0, protocol=Protocol.DECOY_BB84, model="dv-metro")
    expected = presets()["dv-metro"].at(10.0)
    planned = devices.planned_link(link)
    assert planned.block_bytes == expected.block_bits // 8
    assert planned.block_period_s == expected.block_period_s
    assert planned.epsilon == expected.epsilon > 0


def test_a_block_larger_than_a_node_takes_is_handed_over_in_parts_at_the_same_rate() -> None:
    link = dataclasses.replace(LINK, rate_bps=None, loss_db=1.0, protocol=Protocol.CV_GG02, model="cv-metro")
    planned = devices.planned_link(link)
    assert planned.block_bytes <= BLOCK_MAX_BYTES
    rate_bps = planned.block_bytes * 8 / planned.block_period_s
    assert rate_bps == pytest.approx(presets()["cv-metro"].at(1.0).skr_bps, rel=1e-4)
    assert not planned.has_qber


def test_the_prefill_is_an_hour_of_the_link_within_bounds() -> None:
    assert devices.planned_link(LINK).prefill_bytes == 600 * 3600 // 8
    assert devices.planned_link(dataclasses.replace(LINK, rate_bps=1.0)).prefill_bytes == devices.PREFILL_MIN_BYTES
    assert devices.planned_link(dataclasses.replace(LINK, rate_bps=1e6)).prefill_bytes == devices.PREFILL_MAX_BYTES
    assert devices.planned_link(LINK, prefilled=False).prefill_bytes == 0


def test_a_link_too_lossy_for_any_key_has_no_prefill_either() -> None:
    planned = devices.planned_link(dataclasses.replace(LINK, rate_bps=None, loss_db=100.0, model="dv-metro"))
    assert (planned.block_bytes, planned.prefill_bytes) == (0, 0)


def test_a_pool_that_the_topology_sets_becomes_the_stock_of_its_two_directions() -> None:
    assert devices.plan(topology(LINK)).stock_bytes is None
    large = dataclasses.replace(LINK, pool=dataclasses.replace(POOL, max_bytes=200_000))
    assert devices.plan(topology(large)).stock_bytes == 100_000
    tiny = dataclasses.replace(LINK, pool=PoolEntry(max_bytes=1000))
    assert devices.plan(topology(tiny)).stock_bytes == devices.STOCK_MIN_BYTES


@pytest.mark.parametrize(
    ("changed", "complaint"),
    [
        ({"model": "magic"}, "magic.*dv-metro"),
        ({"rate_bps": None, "loss_db": None}, "no rate, and nothing to compute it from; give rate, length or loss"),
        ({"rate_bps": 1e-9}, "must be at least"),
        ({"passes": PassesEntry()}, "satellite"),
    ],
)
def test_a_link_that_cannot_be_emulated_is_refused_by_name(changed: dict[str, object], complaint: str) -> None:
    with pytest.raises(LabError, match=rf"(?s)STP-BRT.*{complaint}"):
        devices.planned_link(dataclasses.replace(LINK, **changed))  # type: ignore[arg-type]
