"""Networks: the built-in ones say what is published, and a file that cannot be meant is refused where it stands."""

from __future__ import annotations

import math
from importlib import resources
from pathlib import Path
from typing import Any

import jsonschema  # type: ignore[import-untyped]
import networkx  # type: ignore[import-untyped]
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from ruamel.yaml import YAML

from keyhop.files import FileError, parse, write
from keyhop.simulator import topology
from keyhop.simulator.topology import Topology, TopologyError, load, load_builtin, load_named, names, topology_schema
from keyhop.simulator.topology_file import Defaults, LinkEntry, NodeEntry, PoolEntry, Protocol, TopologyFile

PUBLISHED = {
    "secoqc_vienna_2008": (6, 8),
    "swissquantum_2009": (3, 3),
    "tokyo_2010": (4, 5),
    "darpa_boston_2004": (3, 2),
    "madqci": (9, 9),
    "cambridge_2019": (3, 3),
    "ukqn_backbone": (5, 4),
    "beijing_shanghai_2017": (6, 4),
    "nsfnet_14": (14, 22),
    "usnet_24": (24, 43),
    "trieste_2021": (4, 3),
}
"""Nodes and links as the files have them, before relays are put in."""


def raw(name: str) -> TopologyFile:
    file = resources.files("keyhop.simulator") / "topologies" / f"{name}.yml"
    return parse(TopologyFile, file.read_bytes(), name, Path("/"))


def graph(network: Topology) -> networkx.Graph:
    made = networkx.Graph()
    made.add_nodes_from(network.nodes)
    made.add_edges_from(link.ends for link in network.links)
    return made


def text(body: str) -> Topology:
    return topology.resolve(parse(TopologyFile, f"apiVersion: keyhop/v1\nname: net\n{body}", "net.yml", Path("/")))


def refusals(body: str) -> str:
    with pytest.raises(FileError) as caught:
        text(body)
    return str(caught.value)


TWO = "nodes: {a: {sae: [sae-a]}, b: {sae: [sae-b]}}\n"


def test_there_are_eleven_published_networks_and_small_ones() -> None:
    assert set(PUBLISHED) < set(names())
    assert {"p2p", "line3", "line5", "ring", "star", "tri"} < set(names())


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_network_has_its_nodes_and_links_and_says_where_they_come_from(name: str) -> None:
    file = raw(name)
    assert (len(file.nodes), len(file.links)) == PUBLISHED[name]
    assert file.sources


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_figure_of_a_published_network_has_a_mark(name: str) -> None:
    rates_by_default = raw(name).defaults.rate_bps is not None
    for link in load_builtin(name).links:
        for figure, value in (("length", link.length_km), ("rate", link.rate_bps), ("qber", link.qber)):
            defaulted = figure == "rate" and rates_by_default
            assert value is None or defaulted or link.confidence_of(figure) in ("A", "B", "C"), (link.id, figure)


@pytest.mark.parametrize("name", names())
def test_every_built_in_link_can_be_emulated(name: str) -> None:
    network = load_builtin(name)
    assert network.name == name
    for link in network.links:
        assert link.rate_bps is not None or link.loss_db is not None, link.id
        assert link.model
    assert sum(len(node.applications) for node in network.nodes.values()) >= 2


@pytest.mark.parametrize("name", names())
def test_every_built_in_file_fits_the_schema_and_reads_back(name: str) -> None:
    content = (resources.files("keyhop.simulator") / "topologies" / f"{name}.yml").read_text()
    jsonschema.validate(_with_text_keys(YAML(typ="safe", pure=True).load(content)), topology_schema())
    assert content.startswith("# yaml-language-server: $schema=keyhop-topology.schema.json\n")
    assert parse(TopologyFile, write(raw(name)), name, Path("/")) == raw(name)


def _with_text_keys(value: Any) -> Any:
    """As JSON has them: a node named 14 is a number to a YAML loader."""
    if isinstance(value, dict):
        return {str(key): _with_text_keys(member) for key, member in value.items()}
    return [_with_text_keys(member) for member in value] if isinstance(value, list) else value


@pytest.mark.parametrize("name", [name for name in names() if name != "beijing_shanghai_2017"])
def test_every_built_in_network_is_connected(name: str) -> None:
    assert networkx.is_connected(graph(load_builtin(name)))


def test_secoqc_is_as_published() -> None:
    network = load_builtin("secoqc")
    rates = {link.id: link.rate_bps for link in network.links}
    assert rates == {
        "ERD-SIE": 2000.0,
        "BRT-SIE": 3100.0,
        "GUD-SIE": 1000.0,
        "ERD-GUD": 8000.0,
        "BRT-ERD": 1000.0,
        "BRT-GUD": 1000.0,
        "BRT-STP": 600.0,
        "ERD-FRM": 10000.0,
    }
    assert networkx.shortest_path(graph(network), "STP", "FRM") == ["STP", "BRT", "ERD", "FRM"]
    spur = next(link for link in network.links if link.id == "BRT-STP")
    assert (spur.protocol, spur.length_km, spur.confidence_of("rate")) == (Protocol.COW, 82.0, "B")
    assert {(app.name, app.between, app.every_s) for app in network.apps} == {
        ("vpn", ("sae-stp", "sae-frm"), 10.0),
        ("phone", ("sae-sie", "sae-gud"), 5.0),
    }
    assert network.home("sae-frm") == "FRM"
    assert not any(node.inserted for node in network.nodes.values())


def test_three_systems_share_one_pair_of_sites_in_tokyo() -> None:
    links = [link for link in load_builtin("tokyo").links if set(link.ends) == {"KOG", "OTE"}]
    assert {link.id: link.rate_bps for link in links} == {"toshiba": 304_000.0, "nec": 81_700.0, "ntt": 1100.0}


def test_the_backbone_has_its_published_spans_and_trusted_nodes() -> None:
    network = load_builtin("beijing_shanghai")
    fibre = [link for link in network.links if link.passes is None]
    pairs = {link.ends for link in fibre}
    assert len(pairs) == 31
    assert len({node for pair in pairs for node in pair}) == 32
    assert math.isclose(sum(link.length_km or 0 for link in fibre) / 4, 2032.0)
    satellite = next(link for link in network.links if link.passes)
    assert (satellite.id, satellite.rate_bps) == ("micius", 47_800.0)


def test_a_placeholder_says_so() -> None:
    assert load_builtin("madqci").placeholder
    assert not load_builtin("secoqc").placeholder


def test_defaults_and_kinds_fill_what_a_link_leaves_out() -> None:
    network = text(
        TWO
        + "defaults: {qber_limit: 9 %, pool: {min: 2 kB, max: 32 kB}, attenuation: 0.3 dB/km}\n"
        + "kinds: {air: {attenuation: 5 dB/km, protocol: bb84, pool: {max: 16 kB}}}\n"
        + "links:\n  - {ends: [a, b], id: x, length: 2 km}\n  - {ends: [a, b], id: y, kind: air, length: 2 km}\n"
        + "  - {ends: ['a:1', 'b:eth1'], id: z, kind: air, length: 2 km, loss: 1 dB, protocol: cow, model: dv-long}\n"
    )
    x, y, z = network.links
    assert (x.loss_db, x.protocol, x.qber_limit, x.model) == (0.6, Protocol.DECOY_BB84, 0.09, "dv-metro")
    assert (y.loss_db, y.protocol) == (10.0, Protocol.BB84)
    assert (z.loss_db, z.protocol, z.model, z.ends) == (1.0, Protocol.COW, "dv-long", ("a", "b"))
    assert x.pool == PoolEntry(min_bytes=2000, threshold_bytes=8000, max_bytes=32_000, ttl_s=86_400.0)
    assert y.pool.max_bytes == 16_000


def test_a_file_of_ten_lines_is_enough() -> None:
    network = load_builtin("line3")
    assert [link.loss_db for link in network.links] == [5.0, 8.0]
    assert network.nodes["relay"].applications == ()


@settings(max_examples=50)
@given(length=st.floats(1, 20_000), span=st.floats(20, 500), lanes=st.integers(1, 4))
def test_spans_add_up_and_none_is_too_long(length: float, span: float, lanes: int) -> None:
    file = TopologyFile(
        api_version="keyhop/v1",
        name="net",
        nodes={"a": NodeEntry(at=(0.0, 0.0)), "b": NodeEntry(at=(10.0, 20.0))},
        links=(LinkEntry(ends=("a", "b"), length_km=length, parallel=lanes, rate_bps=1000.0),),
        defaults=Defaults(max_span_km=span),
    )
    network = topology.resolve(file)
    assert all(link.length_km is not None and link.length_km <= span * (1 + 1e-9) for link in network.links)
    assert math.isclose(sum(link.length_km or 0 for link in network.links), length * lanes)
    assert math.isclose(sum(link.loss_db or 0 for link in network.links), length * lanes * 0.2)
    assert len(network.links) == lanes * math.ceil(length / span)
    assert len(network.nodes) == 1 + math.ceil(length / span)
    assert len({link.id for link in network.links}) == len(network.links)
    assert all(link.rate_bps == 1000.0 for link in network.links)
    assert networkx.shortest_path_length(graph(network), "a", "b") == math.ceil(length / span)
    for node in network.nodes.values():
        assert node.at is not None
        assert math.isclose(node.at[1], node.at[0] * 2, abs_tol=1e-9)


def test_events_are_in_order_and_name_links() -> None:
    network = text(
        TWO
        + "links: [{ends: [a, b], id: x, length: 1 km}, {ends: [b, a], id: y, length: 1 km}]\n"
        + "events:\n  - {at: 2 min, cut: x, for: 30 s}\n  - {at: 1 min, eve: [b, a], fraction: 0.3}\n"
    )
    first, second = network.events
    assert (first.at_s, first.action, first.links, first.fraction) == (60.0, "eve", ("x", "y"), 0.3)
    assert (second.at_s, second.action, second.links, second.duration_s) == (120.0, "cut", ("x",), 30.0)


def test_an_event_on_a_link_with_relays_meets_its_first_span() -> None:
    network = text(
        TWO + "defaults: {max_span: 50 km}\nlinks: [{ends: [a, b], length: 100 km}]\nevents: [{at: 1 s, cut: [a, b]}]\n"
    )
    assert network.events[0].links == ("a-b-s1",)


@pytest.mark.parametrize(
    ("body", "refusal"),
    [
        ("nodes: {}", "net.yml:3: nodes: 0 nodes: must be 1 to 10000"),
        ("nodes: {a b: {}}", "net.yml:3: nodes.a b: 'a b' is not a name here"),
        (TWO + "links: [{ends: [a, c]}]", "net.yml:4: links[0].ends[1]: no node c: known here: a, b"),
        (
            "nodes: {alice: {}, bob: {}}\nlinks: [{ends: [alcie, bob]}]",
            "net.yml:4: links[0].ends[0]: no node alcie: did you mean alice?",
        ),
        (TWO + "links: [{ends: [a, a]}]", "links[0].ends: both ends are a: name two different nodes"),
        (TWO + "links: [{ends: [a]}]", "links[0].ends: has 1 members: must have 2"),
        (TWO + "links: [{ends: [a, b]}, {ends: [b, a]}]", "links[1]: a-b stands here twice: give each link an id"),
        (
            TWO + "links: [{ends: [a, b], kind: fiber}]\nkinds: {fibre: {}}",
            "links[0].kind: no kind fiber: did you mean fibre?",
        ),
        (TWO + "links: [{ends: [a, b], lenght: 5 km}]", "links[0].lenght: unknown key: did you mean length?"),
        (TWO + "links: [{ends: [a, b], length: 5}]", "links[0].length: 5 has no unit: write it as 5 km"),
        (TWO + "links: [{ends: [a, b], protocol: bb48}]", "links[0].protocol: 'bb48' is not known: did you mean bb84?"),
        (TWO + "links: [{ends: [a, b], parallel: 65}]", "links[0].parallel: '65' is out of range: must be 1 to 64"),
        (TWO + "defaults: {relay: aes-gcm}", "defaults.relay: 'aes-gcm' is not known: must be otp"),
        ("nodes: {a: {at: [91, 0]}}", "nodes.a.at[0]: '91' is out of range: must be -90 to 90"),
        ("nodes: {a: {sae: x}, b: {sae: x}}", "nodes.b.sae: x is served by a already: an application has one node"),
        (TWO + "apps: [{name: v, between: [sae-a, sae-c]}]", "apps[0].between[1]: no node serves sae-c: did you mean"),
        (TWO + "apps: [{name: v, between: [sae-a, sae-a]}]", "apps[0].between: both ends are the same"),
        (TWO + "apps: [{name: v, between: [sae-a, sae-b], key_size: 100}]", "apps[0].key_size: 100 bit is no key size"),
        (TWO + "apps: [{name: v, between: [sae-a, sae-b], every: 0 s}]", "apps[0].every: 0 s is too small"),
        (TWO + "events: [{at: 1 s}]", "events[0]: nothing happens: write one of eve, clear, cut, restore"),
        (TWO + "events: [{at: 1 s, cut: x, eve: x}]", "events[0]: eve and cut stand together"),
        (TWO + "events: [{at: 1 s, cut: x}]", "events[0].cut: no link x: known here: nothing"),
        (TWO + "events: [{at: 1 s, cut: [a, b], fraction: 0.5}]", "events[0].fraction: a fraction of nothing"),
        (TWO + "events: [{at: 1 s, clear: x, for: 1 s}]", "events[0].for: clear has no end"),
        (TWO + TWO, "net.yml:4: nodes: written twice, first on line 3: keep one of the two"),
    ],
)
def test_a_network_that_cannot_be_meant_is_refused_where_it_stands(body: str, refusal: str) -> None:
    assert refusal in refusals(body)


def test_names_made_for_spans_and_relays_meet_no_others() -> None:
    spans = "defaults: {max_span: 50 km}\n"
    link = "links: [{ends: [a, b], length: 100 km}"
    assert "a relay on a-b cannot be named a-b-r1" in refusals(
        "nodes: {a: {}, b: {}, a-b-r1: {}}\n" + spans + link + "]"
    )
    assert "a-b-s1 is also the name of a span" in refusals(
        TWO + spans + link + ", {ends: [a, b], id: a-b-s1, length: 1 km}]"
    )


def test_a_file_or_a_name_is_loaded_alike(tmp_path: Path) -> None:
    path = tmp_path / "mine.keyhop.yml"
    path.write_text("apiVersion: keyhop/v1\nname: mine\n" + TWO)
    assert load_named(str(path)) == load(path)
    assert load_named("secoqc") == load_builtin("secoqc_vienna_2008")


def test_an_unknown_network_is_told_with_the_nearest() -> None:
    with pytest.raises(TopologyError, match=r"no built-in network secoq: did you mean secoqc\?"):
        load_builtin("secoq")
    with pytest.raises(TopologyError, match=r"no built-in network and no file rnig: did you mean ring\?"):
        load_named("rnig")
    with pytest.raises(FileError, match="No such file"):
        load_named("rnig.yml")


def test_an_application_that_nobody_serves_has_no_home() -> None:
    with pytest.raises(KeyError):
        load_builtin("p2p").home("sae-carol")
