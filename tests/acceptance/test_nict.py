"""NICT's acceptance list: records of seventeen fields, the server's paths, removal of old keys."""

from __future__ import annotations

from dataclasses import replace

import msgspec
import pytest
from tests.acceptance.benches import SECOND, Bench

from keyhop.core.composed.nouns.messages import Name, Woke
from keyhop.core.composed.relay.central import Reported
from keyhop.core.composed.relay.server import NODE_SIDE, Metadata, SuppliedKey
from keyhop.core.designs import DESIGNS
from keyhop.core.designs.parts import DOORS
from keyhop.core.designs.rules import check
from keyhop.core.policy.disposal import AgePurge
from keyhop.core.policy.routing import Edge

NICT = DESIGNS["nict"]
UNIT = 256
KBIT = 1000
HOUR_NS = 3600 * SECOND


def reported(bench: Bench, at: str) -> Reported:
    relaying = bench.sites[at].relaying
    assert isinstance(relaying, Reported)
    return relaying


def way(bench: Bench) -> tuple[str, ...]:
    """From A to B, as the server has it now."""
    bench.step("A", Woke())
    return reported(bench, "A").path("B")


def supplied(bench: Bench, one: str, other: str, size_bits: int = 256, *, stream: str = "s") -> Name:
    """A key at both ends."""
    request = bench.ask(one, other, size_bits, stream=stream)
    bench.go(1)
    name = bench.name(request)
    fetched = bench.fetch(other, one, name, stream=stream)
    bench.go(1)
    assert bench.name(fetched) == name
    return name


def tell(bench: Bench, link: str, stored_bits: int, rate_bps: int = 0, *, up: bool = True) -> None:
    """A report to the server, of both directions."""
    for start, end in (link.split("-"), reversed(link.split("-"))):
        bench.network.tell(Edge(start, end, stored_bits // 8, rate_bps, up))


@pytest.mark.parametrize("links", [("A-C",), ("A-B", "B-C")], ids=["over a link", "over a relay node"])
def test_at_nict_1_every_key_has_its_record_at_both_agents_and_at_the_server(links: tuple[str, ...]) -> None:
    bench = Bench(NICT, *links)
    for _ in range(3):
        for link in links:
            bench.give(64 * UNIT, link)
        bench.go(2)
    names = [supplied(bench, "A", "C", stream="video"), supplied(bench, "C", "A", stream="voice")]
    server = list(bench.network.server.records)
    assert len(server) == 2 * len(names)
    for node, peer in ("AC", "CA"):
        records = list(reported(bench, node).records)
        assert len(records) == len(names)
        assert all(record in server for record in records)
        for record in records:
            assert record.timestamp <= record.relay_timestamp <= record.receive_timestamp <= record.supply_timestamp
            assert record.timestamp > 0 or links == ("A-C",)
            assert {record.kma_id, record.ksa_id} == {f"kma-{node}", f"ksa-{node}"}
            assert record.key_type == ("enc" if record.source == node else "dec")
            assert (record.source, record.destination) in {(node, peer), (peer, node)}
            assert record.key_size == 256
    fields = set(Metadata.__struct_fields__)
    assert len(fields) == 16
    assert "key_data" not in fields
    for here, there in zip(reported(bench, "A").records, reported(bench, "C").records, strict=True):
        one, other = msgspec.structs.asdict(here), msgspec.structs.asdict(there)
        differing = {field for field in fields if one[field] != other[field]}
        assert differing <= NODE_SIDE
        assert {"key_type", "kma_id", "ksa_id"} <= differing
    bench.balanced()


def test_at_nict_1_only_the_key_itself_has_the_seventeenth_field() -> None:
    bench = Bench(NICT)
    bench.give(64 * UNIT)
    bench.go(2)
    name = supplied(bench, "A", "B")
    key = reported(bench, "A").described(bench.line("A", "B"), name, "s")
    assert isinstance(key, SuppliedKey)
    assert len(Metadata.__struct_fields__) + 1 == 17
    assert key.key_data == name.ranges
    assert key.metadata.kid == name.ranges[0][0]


def test_at_nict_1_keys_are_numbered_in_order() -> None:
    bench = Bench(NICT)
    bench.give(64 * UNIT)
    bench.go(2)
    for _ in range(5):
        supplied(bench, "A", "B")
    assert [record.kid for record in reported(bench, "A").records] == [0, 1, 2, 3, 4]


def tri() -> Bench:
    """Stored A-B 10 kbit, A-C 100 kbit, C-B 80 kbit, and no fresh key."""
    bench = Bench(NICT, "A-B", "A-C", "B-C", tag_bits=0)
    for link, bits in (("A-B", 10), ("A-C", 100), ("B-C", 80)):
        bench.give(bits * KBIT, link)
        tell(bench, link, bits * KBIT)
    bench.go(2)
    return bench


def test_at_nict_2_the_widest_path_is_taken_left_at_an_incident_and_then_there_is_none() -> None:
    bench = tri()
    assert way(bench) == ("A", "C", "B")
    assert supplied(bench, "A", "B").distant
    tell(bench, "B-C", 80 * KBIT, up=False)
    bench.go(1)
    assert way(bench) == ("A", "B")
    assert not supplied(bench, "A", "B").distant
    drained = bench.sites["A"].links["B"]
    while drained.run.pool("A>B").level:
        supplied(bench, "A", "B")
    tell(bench, "A-B", 0)
    bench.go(1)
    assert way(bench) == ()
    sent = len(bench.said)
    refused = bench.ask("A", "B")
    assert "not enough key" in bench.refusal(refused)
    bench.go(10)
    assert bench.words()[sent:] == []
    bench.balanced()


def test_at_nict_2_a_path_is_left_before_the_next_report_when_a_link_runs_low() -> None:
    bench = tri()
    tell(bench, "A-B", 100 * KBIT, 10 * KBIT)
    tell(bench, "A-C", 100 * KBIT, 90 * KBIT)
    tell(bench, "B-C", 100 * KBIT, 90 * KBIT)
    bench.go(1)
    assert way(bench) == ("A", "C", "B")
    # 10 kbit/s over the horizon of 60 s is a full stock of 600 kbit; a tenth of it is low.
    tell(bench, "A-C", 59 * KBIT, 90 * KBIT)
    assert way(bench) == ("A", "C", "B")
    bench.go(1)
    assert way(bench) == ("A", "B")
    bench.balanced()


def aging(max_age_ns: int) -> Bench:
    return Bench(replace(NICT, disposal=AgePurge(max_age_ns=max_age_ns)), tag_bits=0)


def test_at_nict_3_an_old_key_goes_at_both_ends_and_the_server_hears_which() -> None:
    bench = aging(HOUR_NS)
    bench.give(4 * UNIT)
    bench.go(3600)
    assert [bench.book(at, peer).S for at, peer in ("AB", "BA")] == [4 * UNIT, 4 * UNIT]
    bench.go(60)
    for at, peer in ("AB", "BA"):
        assert (bench.book(at, peer).X, bench.book(at, peer).S) == (4 * UNIT, 0)
    kids = sorted(kids for order in bench.network.server.orders for kids in order.kids)
    assert kids == [(0, 4)]
    assert bench.refusal(bench.ask("A", "B"))


def test_at_nict_3_younger_keys_stay_and_used_ones_are_no_business_of_the_purge() -> None:
    bench = aging(HOUR_NS)
    bench.give(32 * UNIT)
    bench.go(2)
    supplied(bench, "A", "B")
    bench.go(100)
    bench.give(32 * UNIT)
    bench.go(3600)
    for at, peer in ("AB", "BA"):
        book = bench.book(at, peer)
        assert (book.D, book.X, book.S) == (UNIT, 31 * UNIT, 32 * UNIT)


def test_at_nict_3_relayed_key_grows_old_from_the_moment_its_source_made_it() -> None:
    bench = Bench(replace(NICT, disposal=AgePurge(max_age_ns=HOUR_NS)), "A-B", "B-C", tag_bits=0)
    for link in ("A-B", "B-C"):
        bench.give(64 * UNIT, link)
    bench.go(2)
    # It comes when the application has given up.
    late = bench.ask("A", "C", 4 * UNIT, deadline_s=0.02)
    bench.go(1)
    assert bench.refusal(late)
    assert bench.line("C", "A").stock_bits == bench.line("A", "C").stock_bits == 4 * UNIT
    bench.go(3661)
    for at, peer in ("AC", "CA"):
        assert (bench.book(at, peer).X, bench.book(at, peer).S) == (4 * UNIT, 0)


def test_at_nict_4_to_encrypt_user_data_at_the_key_manager_is_not_offered() -> None:
    """The 2011 mode breaks the boundary of key supply: it is off, and a design that asks for it is refused."""
    assert not any("encrypt" in door for door in DOORS)
    assert NICT.doors == ("etsi014",)
    broken = check(replace(NICT, door="encrypt_at_kma"))
    assert any("door = encrypt_at_kma" in reason for reason in broken)
