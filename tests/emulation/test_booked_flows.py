"""Guaranteed streams that cross one link in the middle: real nodes, real TLS, and more asked for than there is."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from tests.emulation.asking import SECONDS, Asker, with_policy
from tests.emulation.programs import until
from tests.emulation.small_labs import emulated, exchange, link_place, make, running

from keyhop.emulator import module
from keyhop.emulator.lab import Lab

RATE_BPS = 160_000
"""Of each link; one direction gives nine twentieths of it to keys, and promises nine tenths of that: 64,800 bit/s."""
GOLD_BPS = 12_000
SILVER_BPS = 9_000
GREEDY_BPS = 26_000
"""Over a path it takes nine eighths of that: less than one source may book, more than the others have left of m-d."""
DEADLINE_S = 1.0
"""Of a guaranteed key: processes share a machine with all other tests, and one that stands still relays nothing."""
STAR = """apiVersion: keyhop/v1
name: star
nodes:
  a: {sae: [gold, iron]}
  b: {sae: [silver, greedy, tin]}
  m: {sae: [near, lead]}
  d: {sae: [end, dump]}
links:
  - {id: am, ends: [a, m], length: 25 km, rate: 40 kbps}
  - {id: bm, ends: [b, m], length: 25 km, rate: 40 kbps}
  - {id: dm, ends: [d, m], length: 25 km, rate: 40 kbps}
"""
RULES = f"""apiVersion: keyhop/v1
rules:
  - {{name: gold, application: gold, peer: end, class: guaranteed, rate: {GOLD_BPS} bps, burst: 12288 bit}}
  - {{name: silver, application: silver, peer: end, class: guaranteed, rate: {SILVER_BPS} bps, burst: 12288 bit}}
  - {{name: near, application: near, peer: end, class: guaranteed, rate: 10 kbps, burst: 12288 bit}}
  - {{name: greedy, application: greedy, peer: end, class: guaranteed, rate: {GREEDY_BPS} bps, burst: 12288 bit}}
default:
  key_size: {{max: 4096}}
"""


@pytest.fixture
def star(tmp_path: Path) -> Iterator[Lab]:
    lab = make(tmp_path, STAR, node_files=with_policy(tmp_path, RULES))
    for link in lab.state.links:
        told = msgspec.structs.replace(emulated(lab, link.id), prefill_bytes=65_536, block_bytes=8000)
        module.create(link_place(lab, link.id), told)
    with running(lab):
        yield lab


def has_its_guarantee(lab: Lab, stream: str) -> bool:
    """As its node said last; one that was admitted at once is not spoken of."""
    said = [line for node in "abm" for line in lab.log(node).read_text().splitlines() if f"{stream} " in line]
    told = [line for line in said if "not guaranteed" in line or "loses" in line or "has its guarantee" in line]
    return not told or "has its guarantee" in told[-1]


@pytest.mark.emulation
def test_no_admitted_stream_is_violated_when_all_others_ask_for_more_than_the_middle_link_gives(star: Lab) -> None:
    for master in ("gold", "silver", "near"):
        exchange(star, master, "end", 1, 40)
    deadline = time.monotonic() + 30
    while "m refuses: link m-d" not in star.log("b").read_text():
        assert time.monotonic() < deadline, "the greedy stream is more than the link gives: it must be refused"
        time.sleep(0.2)
    for stream in ("gold -> end", "silver -> end", "near -> end"):
        # Who was refused before modules had told their rates asks again, after 40 s at most.
        until(lambda stream=stream: has_its_guarantee(star, stream), 60.0, f"a guarantee of {stream}, which fits,")
    guaranteed = [
        Asker(star, "gold", "end", GOLD_BPS * 96 // 100, deadline_s=DEADLINE_S),
        Asker(star, "silver", "end", SILVER_BPS * 96 // 100, deadline_s=DEADLINE_S),
        Asker(star, "near", "end", 9_600, deadline_s=DEADLINE_S),
    ]
    others = [
        Asker(star, "iron", "dump", RATE_BPS, 2048),
        Asker(star, "tin", "dump", RATE_BPS, 2048),
        Asker(star, "greedy", "end", GREEDY_BPS, 2048),
        Asker(star, "lead", "dump", RATE_BPS, 2048),
    ]
    for asker in (*others, *guaranteed):
        asker.start()
    for asker in (*others, *guaranteed):
        asker.join()
    for asker in guaranteed:
        assert asker.refused == 0 and asker.given > 0, (asker.master, asker.given, asker.refused, asker.why)
    # The greedy stream is best effort now, and takes its turn with those who each ask for the whole link.
    whole = [asker for asker in others if asker.master != "greedy"]
    assert all(asker.refused or asker.took_s > 1.5 * SECONDS for asker in whole), "there was not enough for all"
    assert sum(asker.given for asker in others) * 2048 > 0, "best effort has its floor"
