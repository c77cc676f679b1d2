"""A simulation file becomes a run that gives the same again, and is refused with its line where it cannot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from keyhop.files import FileError
from keyhop.simulator import simulation
from keyhop.simulator.record import Fault, Trouble, Verdict
from keyhop.simulator.simulation import Setup

HEAD = "apiVersion: keyhop/v1\n"
S = 1_000_000_000
Load = Callable[[str], Setup]


@pytest.fixture
def load(tmp_path: Path) -> Load:
    def load(text: str) -> Setup:
        path = tmp_path / "run.yml"
        path.write_text(HEAD + text)
        return simulation.load(path)

    return load


def test_a_file_of_two_words_has_a_design_a_workload_and_a_load(load: Load) -> None:
    setup = load("topology: p2p\n")
    assert (setup.design, setup.network, setup.asked_by) == ("keyhop", "p2p", "W2 mixed_size, load 0.8")
    assert (setup.seconds, setup.seed) == (600.0, 1)
    assert list(setup.links.values()) == [10_000]


def test_a_path_in_the_file_is_a_network(load: Load) -> None:
    setup = load("path: [a, b, c]\nrate: 20 kbps\nfor: 30 s\n")
    assert setup.links == {frozenset("ab"): 20_000, frozenset("bc"): 20_000}
    assert setup.paths == (("a", "b", "c"),)
    assert {demand.master for demand in setup.scenario.demands} == {"a", "c"}


def test_a_topology_file_is_found_from_the_file_that_names_it(load: Load, tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    network = "name: mine\nnodes: {x: {sae: s1}, y: {sae: s2}}\nlinks: [{ends: [x, y], rate: 3 kbps}]\n"
    network += "apps: [{name: pair, between: [s1, s2]}]\nevents: [{at: 2 s, cut: x-y}, {at: 5 s, restore: x-y}]\n"
    (tmp_path / "nets" / "mine.yml").write_text(HEAD + network)
    setup = load("topology: nets/mine.yml\nfor: 20 s\n")
    assert setup.links == {frozenset("xy"): 3000}
    assert Fault(2 * S, Trouble.LINK_STOPS, "x|y", 3 * S) in setup.scenario.faults


def test_streams_ask_as_they_say(load: Load) -> None:
    setup = load(
        "path: [a, b]\nfor: 10 s\nstreams:\n"
        "  - {between: [a, b], every: 500 ms, arrivals: periodic, key_size: 128, "
        "class: guaranteed, min_rate: 256 bps}\n"
        "  - {between: [b, a], name: late, every: 100 ms, from: 5 s, until: 6 s, deadline: 1 s, category: 1}\n"
    )
    first, _ = setup.scenario.streams
    asked = [demand for demand in setup.scenario.demands if demand.stream == first.name]
    assert len(asked) == 20 and {demand.size_bits for demand in asked} == {128}
    assert (first.service_class, first.min_bps, first.rate_bps) == ("guaranteed", 256, 256)
    times = [demand.at_ns for demand in setup.scenario.demands if demand.stream == "late"]
    assert times and all(5 * S <= at < 6 * S for at in times)
    assert {demand.deadline_ns for demand in setup.scenario.demands if demand.stream == "late"} == {S}
    assert [demand.number for demand in setup.scenario.demands] == list(range(len(setup.scenario.demands)))


def test_events_become_faults(load: Load) -> None:
    setup = load(
        "path: [a, b, c]\nfor: 60 s\ndelay: 5 ms\nevents:\n"
        "  - {at: 1 s, cut: [b, a], for: 2 s}\n"
        "  - {at: 10 s, eve: a-b, fraction: 0.5}\n"
        "  - {at: 15 s, clear: a-b}\n"
        "  - {at: 20 s, eve: b-c, fraction: 0.1, for: 9 s}\n"
        "  - {at: 30 s, restart: b, for: 3 s}\n"
        "  - {at: 40 s, lose_block: b-c}\n"
        "  - {at: 50 s, lose_messages: 2 %}\n"
        "  - {at: 55 s, cut: b-c}\n"
    )
    assert setup.scenario.one_way_delay_ns == 5_000_000
    assert setup.scenario.faults == (
        Fault(1 * S, Trouble.LINK_STOPS, "a|b", 2 * S),
        Fault(10 * S, Trouble.LINK_STOPS, "a|b", 5 * S),
        Fault(30 * S, Trouble.NODE_RESTARTS, "b", 3 * S),
        Fault(40 * S, Trouble.CHUNK_LOST, "b|c"),
        Fault(50 * S, Trouble.MESSAGES_LOST, share=0.02),
        Fault(55 * S, Trouble.LINK_STOPS, "b|c", 5 * S),
    ), "a tenth of the pulses lifts the error rate by 2.5 %, which stops nothing"


@pytest.mark.parametrize("design", ["keyhop", "nec"])
def test_a_run_is_the_same_again_and_tells_how_far_it_is(load: Load, design: str) -> None:
    setup = load(f"topology: line3\ndesign: {design}\nfor: 20 s\n")
    told: list[float] = []
    record = setup.run(told.append)
    assert told == sorted(told) and len(told) >= 19 and told[0] > 0 and told[-1] <= 1
    again = setup.run()
    assert record.outcomes == again.outcomes and record.books == again.books
    assert any(outcome.verdict is Verdict.SUPPLIED for outcome in record.outcomes)


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("topology: line33\n", 2, "topology: no built-in network is called line33: did you mean line3?"),
        ("design: nac\ntopology: p2p\n", 2, "design: no design is called nac: did you mean nec?"),
        ("design: nec\n", 1, "no network: write topology: NAME or path: [ONE, OTHER]"),
        ("topology: p2p\npath: [a, b]\n", 3, "path: topology and path stand together"),
        ("path: [a, a]\n", 2, "path: path of a, a: must name two or more nodes, each once"),
        ("topology: p2p\nworkload: W33\n", 3, "workload: no workload is called W33"),
        ("topology: p2p\nlaod: 1\n", 3, "laod: unknown key: did you mean load?"),
        ("topology: p2p\nfor: 10\n", 3, "for: 10 has no unit"),
        ("topology: p2p\nload: 0\n", 3, "load: '0' is out of range"),
        ("topology: p2p\nfor: 0.001 ms\n", 3, "asks for no key at all"),
        ("topology: p2p\ndesign: cisco\nfor: 800 d\n", 4, "must be at most"),
        ("topology: line3\ndesign: cisco\n", 3, "cisco has no relay"),
        ("path: [a, b]\nstreams:\n  - {between: [a, c]}\n", 4, "streams[0].between[1]: no node c"),
        ("path: [a, b]\nstreams:\n  - {between: [a, a]}\n", 4, "streams[0].between: both ends are a"),
        ("path: [a, b]\nload: 2\nstreams:\n  - {between: [a, b]}\n", 3, "load: a load of streams"),
        ("path: [a, b]\nstreams:\n  - {between: [a, b], key_size: 12}\n", 4, "12 bit is no key size"),
        ("path: [a, b]\nstreams:\n  - {between: [a, b], from: 2 s, until: 1 s}\n", 4, "until 1 s is not after 2 s"),
        (
            "path: [a, b]\nstreams:\n  - {between: [a, b], name: x}\n  - {between: [b, a], name: x}\n",
            4,
            "x stands here twice",
        ),
        ("path: [a, b]\nevents:\n  - {at: 1 s, cut: a-c}\n", 4, "events[0].cut: no link a-c: did you mean a-b?"),
        ("path: [a, b]\nevents:\n  - {at: 1 s}\n", 4, "nothing happens: write one of cut"),
        ("path: [a, b]\nevents:\n  - {at: 1 s, restart: c, for: 1 s}\n", 4, "events[0].restart: no node c"),
        ("path: [a, b]\nevents:\n  - {at: 1 s, restart: a}\n", 4, "a restart without an end"),
        ("path: [a, b]\nevents:\n  - {at: 1 s, lose_block: a-b, for: 1 s}\n", 4, "lose_block has no end"),
        ("path: [a, b]\nevents:\n  - {at: 1 s, cut: a-b, fraction: 0.5}\n", 4, "a fraction of nothing"),
    ],
)
def test_what_cannot_be_run_is_refused_with_its_line(load: Load, text: str, line: int, said: str) -> None:
    with pytest.raises(FileError) as refused:
        load(text)
    problem = refused.value.problems[0]
    assert said in str(problem)
    assert problem.line == line


def test_a_topology_file_that_is_wrong_is_named_itself(load: Load, tmp_path: Path) -> None:
    (tmp_path / "net.yml").write_text(HEAD + "name: net\nnodes: {x: {}}\nlinks: [{ends: [x, z]}]\n")
    with pytest.raises(FileError, match=r"net\.yml:4.*no node z"):
        load("topology: net.yml\n")
    with pytest.raises(FileError, match=r"absent\.yml"):
        load("topology: ./absent.yml\n")
