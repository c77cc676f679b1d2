"""What the core is told of a node file, and which first-contact secrets are still to be loaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from keyhop.core.node.pair import NO_LINK
from keyhop.core.node.rows import PairRow
from keyhop.core.node.store import Snapshot
from keyhop.daemon import linkkey
from keyhop.daemon.assembly import StartError, first_contacts, links_in_store, node_settings
from keyhop.daemon.configuration import (
    AnchorEntry,
    ApplicationEntry,
    LinkEntry,
    Listeners,
    NodeEntry,
    NodeFile,
    PeerListener,
    Quota,
    StoreEntry,
    SupplyListener,
)
from keyhop.daemon.linkkey import LinkKeyUsed
from keyhop.files import Address, Source

ADDRESS = Address("127.0.0.1", 1)
KEY = Source("file", "key")


def node_file(*links: LinkEntry, **more: Any) -> NodeFile:
    return NodeFile(
        api_version="keyhop/v1",
        node=NodeEntry(id="alice"),
        listen=Listeners(
            etsi014=SupplyListener(address=ADDRESS, cert=Path("c"), key=KEY, client_ca=Path("ca")),
            peer=PeerListener(address=ADDRESS, cert=Path("c"), key=KEY, client_ca=Path("ca")),
        ),
        store=StoreEntry(node_key=KEY, memory=True),
        anchor=AnchorEntry(file=Path("anchor")),
        links=links,
        **more,
    )


def link(to: str, first_contact: Path | None = None) -> LinkEntry:
    source = None if first_contact is None else Source("file", str(first_contact))
    return LinkEntry(to=to, driver="any", first_contact=source)


def path_of(source: Source) -> Path:
    found = source.path()
    assert found is not None
    return found


def secret(path: Path, one: str = "alice", other: str = "bob") -> bytes:
    key = linkkey.make(one, other)
    linkkey.write(key, path)
    return key.number


def pair_row(peer: str, number: bytes) -> PairRow:
    return PairRow(peer, number, 1, 1, 1, b"")


def test_a_link_the_store_does_not_know_brings_its_secret(tmp_path: Path) -> None:
    number = secret(tmp_path / "bob.key")
    found = first_contacts(node_file(link("bob", tmp_path / "bob.key")), {}, path_of)
    assert found["bob"].number == number


def test_a_link_that_nobody_knows_anything_of_is_refused_with_the_command() -> None:
    with pytest.raises(StartError, match=r"links: bob: .*keyhop link key alice bob"):
        first_contacts(node_file(link("bob")), {}, path_of)


def test_a_second_fibre_to_a_neighbour_needs_no_secret_of_its_own(tmp_path: Path) -> None:
    secret(tmp_path / "bob.key")
    both = (link("bob", tmp_path / "bob.key"), LinkEntry(to="bob", driver="any", id="second"))
    assert list(first_contacts(node_file(*both), {}, path_of)) == ["bob"]


def test_a_secret_for_other_nodes_is_refused_by_name(tmp_path: Path) -> None:
    secret(tmp_path / "bob.key", "bob", "carol")
    with pytest.raises(StartError, match=r"links: bob: first_contact .* is for bob and carol"):
        first_contacts(node_file(link("bob", tmp_path / "bob.key")), {}, path_of)


def test_a_secret_that_was_used_for_a_store_that_is_gone_is_refused(tmp_path: Path) -> None:
    secret(tmp_path / "bob.key")
    linkkey.consume(tmp_path / "bob.key")
    with pytest.raises(StartError, match="was loaded and overwritten"):
        first_contacts(node_file(link("bob", tmp_path / "bob.key")), {}, path_of)


def test_a_secret_that_is_in_the_store_already_is_overwritten(tmp_path: Path) -> None:
    """The last start was broken off between the commit and the overwriting."""
    number = secret(tmp_path / "bob.key")
    assert first_contacts(node_file(link("bob", tmp_path / "bob.key")), {"bob": number}, path_of) == {}
    with pytest.raises(LinkKeyUsed):
        linkkey.read(tmp_path / "bob.key")


def test_another_secret_than_that_in_the_store_is_left_alone(tmp_path: Path) -> None:
    number = secret(tmp_path / "bob.key")
    assert first_contacts(node_file(link("bob", tmp_path / "bob.key")), {"bob": bytes(16)}, path_of) == {}
    assert linkkey.read(tmp_path / "bob.key").number == number


def test_a_file_that_was_taken_away_after_its_use_is_not_missed(tmp_path: Path) -> None:
    assert first_contacts(node_file(link("bob", tmp_path / "gone")), {"bob": bytes(range(16))}, path_of) == {}


def test_a_pair_that_met_by_relay_has_no_link_yet() -> None:
    rows = [pair_row("bob", bytes(range(16))), pair_row("zoe", NO_LINK)]
    snapshot = Snapshot(rows=list(rows), used=[], blocks=[], secrets=[])
    assert links_in_store(snapshot) == {"bob": bytes(range(16))}


def test_only_neighbours_of_the_node_file_are_neighbours() -> None:
    settings = node_settings(node_file(link("bob")), {"bob": bytes(range(16)), "carol": bytes(16)})
    assert [neighbour.node for neighbour in settings.neighbours] == ["bob"]


def test_an_application_without_quota_is_not_limited_and_one_with_a_rate_is() -> None:
    free = ApplicationEntry(id="free")
    poor = ApplicationEntry(id="poor", quota=Quota(rate_bps=1000.0, burst_bits=4096, requests_per_s=1.5))
    one, other = node_settings(node_file(applications=(free, poor)), {}).applications
    assert one.burst_bits >= 1 << 40 and one.rate_bps >= 1 << 40
    assert (other.rate_bps, other.burst_bits, other.requests_per_s, other.burst_requests) == (1000, 4096, 1, 100)
