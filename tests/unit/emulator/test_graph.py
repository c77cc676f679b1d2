import math
import xml.etree.ElementTree as ET

import pytest

from keyhop.emulator import graph
from keyhop.emulator.graph import Format, GraphLink, GraphNode, draw

NODES = (
    GraphNode("STP", "St. Pölten", ("sae-stp",), (48.205, 15.626)),
    GraphNode("BRT", "Breitenfurter Straße", (), (48.145, 16.300)),
    GraphNode("ERD", "Erdberg", (), (48.199, 16.406)),
    GraphNode("FRM", "Forum", ("sae-frm",), (48.1986, 16.4053)),
)
LINKS = (
    GraphLink("BRT-STP", ("BRT", "STP"), "82 km · 0.6 kb/s", "up"),
    GraphLink("BRT-ERD", ("BRT", "ERD"), "25 km · 1 kb/s", "suspended"),
    GraphLink("ERD-FRM", ("ERD", "FRM"), "80 m · 10 kb/s", "down"),
)
HOSTILE = 'x"]; <script>alert(1)</script> & \\ \n'
SVG = "{http://www.w3.org/2000/svg}"


def test_svg_is_well_formed_and_has_each_node_and_link() -> None:
    picture = ET.fromstring(draw("secoqc", NODES, LINKS, Format.SVG))
    assert len(picture.findall(f"{SVG}circle")) == 4
    assert [path.findtext(f"{SVG}title") for path in picture.findall(f"{SVG}path")] == ["BRT-STP", "BRT-ERD", "ERD-FRM"]
    words = "\n".join(picture.itertext())
    for expected in ("St. Pölten", "sae-frm", "82 km · 0.6 kb/s · up"):
        assert expected in words


def test_states_differ_in_more_than_colour() -> None:
    picture = ET.fromstring(draw("secoqc", NODES, LINKS, Format.SVG))
    dashes = [path.get("stroke-dasharray") for path in picture.findall(f"{SVG}path")]
    assert len(set(dashes)) == 3


def test_places_on_earth_are_kept_west_to_the_left_and_north_up() -> None:
    places = graph.layout(NODES, LINKS)
    assert places["STP"][0] < places["BRT"][0] < places["ERD"][0]
    assert places["ERD"][1] < places["BRT"][1]


@pytest.mark.parametrize("placed", [True, False])
def test_nodes_do_not_lie_on_each_other_and_all_are_on_the_page(placed: bool) -> None:
    nodes = NODES if placed else tuple(node._replace(at=None) for node in NODES)
    places = list(graph.layout(nodes, LINKS).values())
    for index, (x, y) in enumerate(places):
        assert 0 < x < graph.WIDTH
        assert 0 < y < graph.HEIGHT
        assert all(math.dist((x, y), other) > 2 * graph.NODE_RADIUS for other in places[index + 1 :])


def test_a_line_of_nodes_without_places_is_drawn_in_its_order() -> None:
    nodes = [GraphNode(name) for name in "abcd"]
    links = [GraphLink(f"{one}{two}", (one, two)) for one, two in ("ab", "bc", "cd")]
    places = graph.layout(nodes, links)
    lengths = [math.dist(places[one], places[two]) for one, two in ("ab", "bc", "cd")]
    assert math.dist(places["a"], places["d"]) > max(lengths)


def test_the_same_network_gives_the_same_picture() -> None:
    nodes = [GraphNode(str(number)) for number in range(20)]
    links = [GraphLink(f"l{number}", (str(number), str((number * 7 + 3) % 20))) for number in range(20)]
    assert draw("n", nodes, links, Format.SVG) == draw("n", nodes, links, Format.SVG)


def test_two_links_between_the_same_nodes_are_two_lines() -> None:
    links = (GraphLink("one", ("BRT", "STP"), "a"), GraphLink("two", ("STP", "BRT"), "b"))
    paths = ET.fromstring(draw("n", NODES, links, Format.SVG)).findall(f"{SVG}path")
    assert len({path.get("d") for path in paths}) == 2


def test_mermaid_names_every_node_once_and_joins_the_right_ones() -> None:
    text = draw("secoqc", NODES, LINKS, Format.MERMAID)
    assert text.splitlines()[:2] == ["graph LR", '  n0["STP<br/>St. Pölten<br/>sae-stp"]']
    assert '  n1 ---|"82 km · 0.6 kb/s · up"| n0' in text
    assert "linkStyle 2 stroke:#b91c1c,stroke-width:2px,stroke-dasharray:2 5" in text


def test_dot_has_quoted_names_and_styles() -> None:
    text = draw("secoqc", NODES, LINKS, Format.DOT)
    assert text.startswith('graph "secoqc" {')
    assert '"BRT" -- "ERD" [label="25 km · 1 kb/s · suspended", color="#b45309", style=dashed];' in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("form", list(Format))
def test_a_name_cannot_leave_its_place_in_the_text(form: Format) -> None:
    nodes = (GraphNode("a", HOSTILE, (HOSTILE,)), GraphNode("b"))
    text = draw(HOSTILE, nodes, (GraphLink(HOSTILE, ("a", "b"), HOSTILE),), form)
    if form is Format.SVG:
        assert "script" not in [element.tag for element in ET.fromstring(text).iter()]
    if form is Format.DOT:
        assert text.replace("\\\\", "").replace('\\"', "").count('"') % 2 == 0
        assert text.count("\n") == 6
    if form is Format.MERMAID:
        assert "<script>" not in text
        assert 'x"]' not in text
        assert text.count("\n") == 4


@pytest.mark.parametrize("form", list(Format))
def test_an_empty_network_is_drawn_as_an_empty_page(form: Format) -> None:
    assert draw("nothing", (), (), form)


def test_a_continental_network_is_drawn_in_a_moment() -> None:
    nodes = [GraphNode(str(number)) for number in range(1000)]
    links = [GraphLink(f"l{number}", (str(number), str(number + 1))) for number in range(999)]
    assert len(graph.layout(nodes, links)) == 1000
