"""What cannot stand in one design is refused, with the reason and with what would be legal."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from keyhop.core.designs import DESIGNS, Design, Formatting, LocalGlobal, check
from keyhop.core.designs.source import C, S
from keyhop.core.policy.admission import AdmitAll, Reservation
from keyhop.core.policy.disposal import EraseNow
from keyhop.core.policy.division import EncDec, Purpose, Session, Shared
from keyhop.core.policy.fallback import ByCategory, Deny, Derive, Hybrid
from keyhop.core.policy.formatting import Identity, Kdf, SplitMerge
from keyhop.core.policy.priority import Fifo, ResponseWeight
from keyhop.core.policy.refill import NoThreshold
from keyhop.core.policy.relay import HopByHop, NoRelay, RelayXor
from keyhop.core.policy.routing import LinkState, NoRouting
from keyhop.core.policy.storage import ByteStream, FixedBlock
from keyhop.core.policy.synchronisation import (
    AppNegotiated,
    DirectedPool,
    Lease,
    ProposeAccept,
    StampSequence,
    WorkingSet,
)

PURPOSE = Purpose(shares=(("direct", 1.0),))


def design(**given: Any) -> Design:
    base: dict[str, Any] = {
        "name": "x",
        "title": "x",
        "storage": FixedBlock(unit_bits=256),
        "synchronisation": ProposeAccept(by="asker"),
        "door": "etsi014",
    }
    return Design(**{**base, **given})


def refusal(one: Design, links: int = 0) -> str:
    said = check(one, links)
    assert len(said) == 1, said
    return said[0]


@pytest.mark.parametrize("name", DESIGNS)
def test_no_shipped_design_is_refused(name: str) -> None:
    assert check(DESIGNS[name]) == []


@pytest.mark.parametrize("synchronisation", [WorkingSet(), AppNegotiated()])
@pytest.mark.parametrize("division", [Session(), EncDec(), (PURPOSE, EncDec()), (PURPOSE, Session())])
def test_nothing_is_contested_where_key_is_divided_by_end_or_session(synchronisation: Any, division: Any) -> None:
    said = refusal(design(synchronisation=synchronisation, division=division))
    assert "no key is contested" in said and "legal are shared or purpose" in said
    assert check(design(synchronisation=synchronisation, division=(PURPOSE, Shared()))) == []
    assert check(design(synchronisation=DirectedPool(), division=division)) == []


@pytest.mark.parametrize("division", [Shared(), Session(), PURPOSE])
def test_a_lease_needs_directions(division: Any) -> None:
    said = refusal(design(synchronisation=Lease(), division=division))
    assert said.startswith("synchronisation = lease without division = enc_dec") and "legal is enc_dec" in said
    assert check(design(synchronisation=Lease(), division=(EncDec(), Session()))) == []


def test_stamps_need_bytes() -> None:
    said = refusal(design(synchronisation=StampSequence()))
    assert "stamp_sequence with storage = fixed_block" in said and "legal is byte_stream" in said
    assert check(design(synchronisation=StampSequence(), storage=ByteStream())) == []


def test_a_response_weight_needs_a_security_level_in_the_request() -> None:
    said = refusal(design(priority=ResponseWeight()))
    assert "carry no security_level" in said and "legal is request = security_level" in said
    assert check(design(priority=ResponseWeight(), request=("security_level",))) == []
    assert check(design(priority=Fifo())) == []


@pytest.mark.parametrize(
    ("given", "part"),
    [
        ({"formatting": Formatting(supply=Kdf())}, "kdf"),
        ({"formatting": Formatting(reception=Kdf())}, "kdf"),
        ({"fallback": Derive()}, "derive"),
        ({"fallback": Hybrid()}, "hybrid"),
        ({"fallback": ByCategory()}, "by_category"),
    ],
)
def test_a_promise_of_its_keys_does_not_go_with_what_is_only_computationally_secure(
    given: dict[str, Any], part: str
) -> None:
    said = refusal(design(**given, promises_its=True))
    assert f"{part} in a design that promises ITS keys" in said and "computationally" in said and "no promise" in said
    assert check(design(**given)) == []


def test_a_promise_of_its_keys_goes_with_what_is_cut_waited_for_or_denied() -> None:
    table = ByCategory(table=("wait", "wait", "deny", "deny", "wait"))
    for fallback in (Deny(), table):
        assert check(design(formatting=Formatting(supply=SplitMerge()), fallback=fallback, promises_its=True)) == []


@pytest.mark.parametrize(("links", "refused"), [(0, False), (1, False), (2, False), (3, True), (9, True)])
def test_relay_by_xor_reaches_two_links_far(links: int, refused: bool) -> None:
    said = check(design(relay=RelayXor(), routing=LinkState()), links)
    assert bool(said) is refused
    if refused:
        assert f"on a path of {links} links" in said[0] and "at most 2 links, or hop_by_hop" in said[0]
    assert check(design(relay=HopByHop(), routing=LinkState()), links) == []


def test_nobody_reserves_along_a_path_that_only_a_file_knows() -> None:
    said = refusal(design(admission=Reservation(), relay=HopByHop(), routing=NoRouting()))
    assert "reservation along a path" in said and "link_state, central_kms or sdn, or admit_all" in said
    assert check(design(admission=Reservation(), relay=HopByHop(), routing=LinkState())) == []
    assert check(design(admission=AdmitAll(), relay=HopByHop(), routing=NoRouting())) == []
    assert check(design(admission=Reservation(), relay=NoRelay())) == [], "on one link there is no path"


def test_a_global_answer_needs_a_relay() -> None:
    split = LocalGlobal(NoThreshold(), NoThreshold())
    assert "refill.global with relay = no_relay" in refusal(design(refill=split))
    assert check(design(refill=split, relay=HopByHop())) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"storage": EncDec()}, "storage = enc_dec: must be one of fixed_block, multi_size_block, byte_stream"),
        ({"relay": Deny()}, "relay = deny: must be one of no_relay, hop_by_hop, relay_xor, split_path"),
        ({"fallback": "deny"}, "fallback = str: must be one of deny, wait"),
        ({"relay": LocalGlobal(NoRelay(), HopByHop())}, "relay: takes one answer, not a local and a global one"),
        ({"storage": (ByteStream(), FixedBlock(unit_bits=8))}, "storage: takes one answer, not several"),
        ({"division": ()}, "division: has no answer: must be one of shared, enc_dec, session, purpose"),
        ({"division": (EncDec(),)}, "division: has a list of one answer: give it alone"),
        ({"disposal": (EraseNow(), EraseNow())}, "disposal: has one part twice"),
        ({"formatting": Identity()}, "formatting: reception and supply are answers to formatting"),
        ({"refill": Formatting()}, "refill: reception and supply are answers to formatting"),
        ({"formatting": Formatting(supply=Deny())}, "formatting.supply = deny: must be one of identity"),
        ({"door": "fax"}, "door = fax: must be one of ike_qpd, session, app_buffer"),
        ({"door": ()}, "door: has none: must be one or more of ike_qpd"),
        ({"door": "session"}, "door.profile = '': must be one of rate, fifo, buffer for a session"),
        ({"door": "session", "profile": "slow"}, "door.profile = 'slow': must be one of rate, fifo, buffer"),
        ({"profile": "rate"}, "door.profile = 'rate': must be one of rate, fifo, buffer for a session, and empty else"),
        ({"sources": {S: ("storage.size",)}}, "sources S: 'storage.size' is no field of this design"),
        ({"sources": {S: ("refill.global",)}}, "sources S: 'refill.global' is no field of this design"),
        ({"sources": {S: ("relay",), C: ("relay",)}}, "sources C: 'relay' has another tag already"),
    ],
)
def test_what_is_no_design_is_named_with_what_would_be(given: dict[str, Any], said: str) -> None:
    assert any(entry.startswith(said) for entry in check(design(**given))), check(design(**given))


def test_every_broken_rule_is_said() -> None:
    said = check(design(synchronisation=Lease(), priority=ResponseWeight(), fallback=Derive(), promises_its=True))
    assert len(said) == 3


def test_a_design_that_is_turned_into_an_illegal_one_is_refused() -> None:
    assert len(check(replace(DESIGNS["secoqc"], fallback=Derive()))) == 1
    assert len(check(replace(DESIGNS["ddka"], request=()))) == 1
    assert len(check(replace(DESIGNS["keyhop"], division=Shared()))) == 1
