"""Links and pairs that begin anew under a site that runs on: nothing of what was before is used or said again."""

from __future__ import annotations

import pytest

from keyhop.core.composed.line import LineSettings
from keyhop.core.composed.network import Network
from keyhop.core.composed.nouns.messages import (
    BlockArrived,
    KeyAsked,
    KeyFetched,
    Kx,
    KxArrived,
    LinkRenewed,
    Name,
    NetworkLearned,
    PairParted,
    Woke,
)
from keyhop.core.composed.relay.parcels import Parcel, relay_message
from keyhop.core.composed.relay.relaying import HopWise
from keyhop.core.composed.site import Site
from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS
from keyhop.core.policy.synchronisation import Verb

LINKS = {frozenset("ab"): 10_000, frozenset("bc"): 10_000}


def site(node: str, design: str, links: dict[frozenset[str], int] | None = None) -> Site:
    network = Network(LINKS if links is None else links)
    return Site(node, DESIGNS[design], network, lambda: 0.5, lambda *_: LineSettings(rate_bps=10_000, tag_bits=0))


def with_key(node: str, design: str, peer: str) -> Site:
    made = site(node, design)
    made.step(BlockArrived(peer, 0, 65_536, 0, 0), 1)
    made.step(KxArrived(peer, Kx("AGREE", Verb.AGREE, number=1, counts=(0, 0), kind="ask")), 2)
    return made


def test_whoever_waits_for_a_name_is_refused_when_its_link_begins_anew() -> None:
    one = site("a", "nict")
    one.step(KeyFetched(7, "b", "s", Name(False, "b>a", ((0, 1),), 256, 256), NANOSECONDS), 1)
    (answered,) = one.step(LinkRenewed("b"), 2).answer
    assert answered.request == 7 and answered.name is None and "anew" in answered.refusal


def test_whoever_waits_for_key_of_a_distant_site_is_refused_when_the_pair_begins_anew() -> None:
    one = site("a", "qkdnetsim_like")
    assert not one.step(KeyAsked(3, "c", "s", 256, NANOSECONDS), 1).answer
    before = one.pairs["c"]
    (answered,) = one.step(PairParted("c"), 2).answer
    assert answered.request == 3 and answered.name is None
    assert one.line("c") is not before


def test_a_link_that_is_not_ready_says_nothing() -> None:
    one = site("a", "cisco")
    one.step(LinkRenewed("b", silent=True), 1)
    one.links["b"].talk.tell(Kx("PURGE", Verb.DESTROY))
    assert not one.step(Woke(), 2).send
    one.step(LinkRenewed("b"), 3)
    one.links["b"].talk.tell(Kx("PURGE", Verb.DESTROY))
    assert [said.message.word for said in one.moves.send] == ["PURGE"]


def test_what_a_former_link_still_wants_to_repeat_goes_nowhere() -> None:
    one = site("a", "cisco")
    one.links["b"].talk.ask(Kx("PROPOSE", Verb.ASSIGN, ranges=((0, 1),)), lambda answer: None)
    one.step(LinkRenewed("b"), 1)
    assert not one.step(Woke(), 60 * NANOSECONDS).send


def test_nobody_speaks_for_the_link_of_another() -> None:
    one = site("b", "nict")
    line = one.links["a"]
    line.dealing.fresh(line.run, 0, 64)
    line.run.end = 64
    label = line.dealing.label("", False)
    (start, _), *_ = line.run.pool(label)
    parcel = Parcel(1, 256, ("a", "b", "c"), 0, True)
    pad = Name(False, label, ((start, start + 1),), 256, 256, unit_bits=256)
    forged = relay_message(parcel, pad)
    before = line.run.units
    with pytest.raises(ValueError, match="c, who says so, is not next to b"):
        one.step(
            KxArrived("c", Kx(forged.word, forged.verb, 1, forged.ranges, forged.to, forged.counts, forged.names)), 1
        )
    assert line.run.units == before
    one.step(KxArrived("a", Kx(forged.word, forged.verb, 1, forged.ranges, forged.to, forged.counts, forged.names)), 2)
    assert line.run.units < before


def test_batches_for_a_pair_that_is_no_more_take_no_pad_and_are_not_awaited() -> None:
    one = site("a", "qkdnetsim_like")
    one.step(KeyAsked(3, "c", "s", 256, NANOSECONDS), 1)
    assert isinstance(one.relaying, HopWise)
    assert one.relaying.brings(one.pairs["c"])
    one.step(PairParted("c"), 2)
    line = one.line("c")
    assert line is not None and not one.relaying.brings(line)


def test_a_network_that_grows_is_reached() -> None:
    one = site("a", "swissquantum", {frozenset("ab"): 10_000})
    assert one.line("c") is None
    assert one.network.learn("b", "c", 5_000)
    one.step(NetworkLearned(), 1)
    line = one.line("c")
    assert line is not None
    assert one.relaying.rate_bps("c") == 5_000
    assert not one.network.learn("c", "b", 7_000)
    assert one.network.rates[frozenset("bc")] == 5_000


@pytest.mark.parametrize("rate_bps", [1, 40_000])
def test_a_link_of_unknown_rate_gets_it_when_it_is_told(rate_bps: int) -> None:
    network = Network({frozenset("ab"): 10_000})
    network.learn("b", "c", 0)
    assert network.rates[frozenset("bc")] == 1
    network.learn("b", "c", rate_bps)
    assert network.rates[frozenset("bc")] == rate_bps
