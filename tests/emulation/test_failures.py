"""A ring of four real nodes that are killed, cut off and put back from old copies: no key is lost that was answered,
none is given twice, and supply goes on by itself.
"""

from __future__ import annotations

import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from uuid import UUID

import msgspec
import pytest
from programs import end_all_in, keyhop, until
from small_labs import emulated, exchange, heard, kill, kme, link_place, make

from keyhop import Key, KeyGone, KeyhopError, NotEnoughKey, Unreachable
from keyhop.emulator import control, inspection, module
from keyhop.emulator import lab as labs
from keyhop.emulator.lab import Lab
from keyhop.wire.manage import LinkState

pytestmark = pytest.mark.emulation

RING = """apiVersion: keyhop/v1
name: ring
nodes:
  a: {sae: [sae-a]}
  b: {sae: [sae-b]}
  c: {sae: [sae-c]}
  d: {}
links:
  - {id: ab, ends: [a, b], length: 25 km, rate: 40 kbps}
  - {id: bc, ends: [b, c], length: 25 km, rate: 40 kbps}
  - {id: cd, ends: [c, d], length: 25 km, rate: 40 kbps}
  - {id: da, ends: [d, a], length: 25 km, rate: 40 kbps}
"""
PREFILL_BYTES = 40_000
"""Little, so that a link without light is soon used up."""
LOAD_KEYS = 60
"""So many keys have crossed each path before a node is killed."""
SUPPLY_AGAIN_S = 15.0
REFUSAL_S = 2.5
"""A request waits up to a second for a lease; it is never left without an answer."""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    place = tmp_path_factory.mktemp("failures")
    lab = make(place, RING)
    for link in lab.state.links:
        described = msgspec.structs.replace(emulated(lab, link.id), prefill_bytes=PREFILL_BYTES)
        module.create(link_place(lab, link.id), described)
    try:
        labs.start(lab)
        yield lab
    finally:
        labs.stop(labs.open_lab(lab.directory))
        end_all_in(place)


@pytest.fixture(scope="module")
def seen() -> Seen:
    return Seen()


@dataclass
class Seen:
    """Every key that any test of this lab was given, by all its owners."""

    ids: set[UUID] = field(default_factory=set)
    bits: set[bytes] = field(default_factory=set)

    def add(self, keys: list[Key]) -> None:
        """Keys that `enc_keys` answered with: none of them may have come before."""
        ids, bits = {key.id for key in keys}, {key.reveal() for key in keys}
        assert len(ids) == len(bits) == len(keys)
        assert not ids & self.ids
        assert not bits & self.bits
        self.ids |= ids
        self.bits |= bits


@dataclass
class Load:
    """A master that asks for keys and a slave that fetches every other one, until their node is gone."""

    master: str
    slave: str
    answered: list[Key] = field(default_factory=list)
    """By `enc_keys`: the application has it in hand."""
    fetched: list[Key] = field(default_factory=list)
    in_doubt: set[UUID] = field(default_factory=set)
    """Asked for by `dec_keys` when the node went away: fetched without an answer, or not."""

    def waiting(self) -> list[Key]:
        fetched = {key.id for key in self.fetched}
        return [key for key in self.answered if key.id not in fetched and key.id not in self.in_doubt]


@contextmanager
def under_load(lab: Lab, *loads: Load) -> Iterator[None]:
    """Runs them, lets the body do its harm once all are well under way, and ends them with their node."""
    over = threading.Event()
    threads = [threading.Thread(target=bear, args=(lab, load, over)) for load in loads]
    for thread in threads:
        thread.start()
    try:
        until(lambda: well_under_way(lab, loads), 20.0, "a load")
        yield
    finally:
        over.set()
        for thread in threads:
            thread.join()


def well_under_way(lab: Lab, loads: Sequence[Load]) -> bool:
    for node in lab.state.nodes:
        log = (lab.config(node.id).parent / "log").read_text()
        assert '"node_failed"' not in log, f"node {node.id} failed by itself:\n{log[-2000:]}"
    return all(len(load.fetched) >= LOAD_KEYS / 2 for load in loads)


def bear(lab: Lab, load: Load, over: threading.Event) -> None:
    with kme(lab, load.master) as near, kme(lab, load.slave) as far:
        while not over.is_set():
            try:
                one, other = near.get_keys(load.slave, n=2)
            except NotEnoughKey:
                time.sleep(0.02)
                continue
            except Unreachable:
                return
            load.answered += [one, other]
            try:
                assert far.fetch_key(load.master, one.id) == one
                load.fetched.append(one)
            except KeyhopError:
                load.in_doubt.add(one.id)


def fetch(lab: Lab, load: Load, keys: list[Key]) -> None:
    """All of these at the far end, as the near end has them; what is refused for the moment is asked for again."""
    deadline = time.monotonic() + SUPPLY_AGAIN_S
    with kme(lab, load.slave) as far:
        for key in keys:
            found = None
            while found is None:
                try:
                    found = far.fetch_key(load.master, key.id)
                except (NotEnoughKey, Unreachable):
                    if time.monotonic() >= deadline:
                        raise
                    time.sleep(0.05)
            assert found == key


def must_not_be_fetched(lab: Lab, load: Load, keys: list[Key]) -> None:
    with kme(lab, load.slave) as far:
        for key in keys:
            with pytest.raises(KeyGone):
                far.fetch_key(load.master, key.id)


def supplies_again(lab: Lab, seen: Seen, master: str, slave: str) -> None:
    seen.add(exchange(lab, master, slave, 5, SUPPLY_AGAIN_S))


# --- a node is killed -------------------------------------------------------------------------------------------------


def test_a_node_that_is_killed_while_it_hands_out_keys_loses_none_and_gives_none_twice(lab: Lab, seen: Seen) -> None:
    loads = [Load("sae-a", "sae-b"), Load("sae-a", "sae-c")]
    with under_load(lab, *loads):
        kill(lab, "a")
    labs.restart_node(lab, "a")
    for load in loads:
        seen.add(load.answered)
        supplies_again(lab, seen, load.master, load.slave)
        assert len(load.waiting()) >= LOAD_KEYS / 2
        # Only what was never answered is burnt with the rest of the lease: what was, the far end still has.
        fetch(lab, load, load.waiting())
        must_not_be_fetched(lab, load, load.fetched[:10])
    written = (lab.config("a").parent / "audit.jsonl").read_text()
    assert {written.count(f'"{key.id}"') for load in loads for key in load.answered} == {1}


def test_a_node_that_is_killed_while_keys_are_fetched_from_it_gives_each_once(lab: Lab, seen: Seen) -> None:
    loads = [Load("sae-a", "sae-b"), Load("sae-c", "sae-b")]
    with under_load(lab, *loads):
        kill(lab, "b")
    labs.restart_node(lab, "b")
    for load in loads:
        seen.add(load.answered)
        fetch(lab, load, load.waiting())
        must_not_be_fetched(lab, load, load.fetched)
        supplies_again(lab, seen, load.master, load.slave)


# --- an operator says so ---------------------------------------------------------------------------------------------


def test_an_operator_can_say_that_a_node_was_put_back(lab: Lab, seen: Seen) -> None:
    address = lab.node("a").manage
    unasked = keyhop(lab.directory, "node", "restored", "--address", address)
    assert unasked.returncode != 0
    before = heard(lab, "a", "KH-5101")
    with kme(lab, "sae-a") as near:
        waiting = near.get_keys("sae-b", n=5, wait=10)
        seen.add(waiting)
    said = keyhop(lab.directory, "node", "restored", "--address", address, "--yes")
    assert said.returncode == 0, said.stderr
    assert said.stdout.startswith("node a: leased keys are burnt, epoch ")
    assert heard(lab, "a", "KH-5101") == before + 1
    supplies_again(lab, seen, "sae-a", "sae-b")
    supplies_again(lab, seen, "sae-a", "sae-c")
    must_not_be_fetched(lab, Load("sae-a", "sae-b"), waiting)


# --- links are cut ----------------------------------------------------------------------------------------------------


def states(lab: Lab, link: str) -> set[LinkState]:
    return {seen.state for view in inspection.look(lab) for seen in view.links if seen.id == link}


def path(lab: Lab) -> str:
    """From a to c, as a user is shown it; empty while there is none, as at a node that has just started anew."""
    words = keyhop(lab.directory, "route", "show", "a", "c").stdout.split()
    return words[1] if len(words) > 1 else ""


def test_a_cut_link_leads_to_another_path_by_itself_and_two_to_a_quick_refusal(lab: Lab, seen: Seen) -> None:
    until(lambda: path(lab), 10.0, "a path")
    used = path(lab)
    first, second, other = ("ab", "da", "a-d-c") if used == "a-b-c" else ("da", "ab", "a-b-c")
    control.cut(lab.directory, first)
    until(lambda: path(lab) == other, 10.0, "the other path")
    seen.add(exchange(lab, "sae-a", "sae-c", 20))

    control.cut(lab.directory, second)
    until(lambda: states(lab, second) == {LinkState.SUSPENDED}, 10.0, "the end of the light")
    refusal, took_s = use_up(lab, seen)
    assert took_s < REFUSAL_S
    assert refusal.http_status == 503
    assert re.fullmatch(
        "not enough key for sae-a -> sae-c: "
        "(no path to KME c has key left to relay with|nothing was relayed to KME c in time.*)",
        refusal.message,
    )
    assert refusal.retry_after == 1.0

    control.restore(lab.directory, first)
    control.restore(lab.directory, second)
    until(lambda: states(lab, first) == states(lab, second) == {LinkState.UP}, 10.0, "the light")
    supplies_again(lab, seen, "sae-a", "sae-b")


def use_up(lab: Lab, seen: Seen, timeout_s: float = 20.0) -> tuple[NotEnoughKey, float]:
    """Takes all key there is from a to c: the refusal that follows, and how many seconds it took."""
    deadline = time.monotonic() + timeout_s
    refused = 0
    with kme(lab, "sae-a") as near:
        while True:
            began = time.monotonic()
            try:
                seen.add(near.get_keys("sae-c", n=4, size=1024))
                refused = 0
            except NotEnoughKey as error:
                refused += 1
                # What was under way when the light went may still come.
                if refused == 2:
                    return error, time.monotonic() - began
            assert time.monotonic() < deadline, "there is no end of key"


# --- an old copy is put back ------------------------------------------------------------------------------------------


def put_back(copy: Path, directory: Path, *names: str) -> None:
    for name in names:
        there = directory / name
        if there.is_dir():
            shutil.rmtree(there)
            shutil.copytree(copy / name, there)
        else:
            shutil.copy2(copy / name, there)


@pytest.mark.parametrize(
    ("names", "reason"),
    [
        (("store",), "the store remembers start "),
        (("store", "anchor", "audit.jsonl"), " heard of start "),
    ],
    ids=["the store alone", "the whole directory"],
)
def test_a_node_put_back_from_an_old_copy_is_found_out_and_gives_no_key_twice(
    lab: Lab, seen: Seen, tmp_path: Path, names: tuple[str, ...], reason: str
) -> None:
    directory = lab.config("a").parent
    kill(lab, "a", signal.SIGTERM)
    shutil.copytree(directory, tmp_path / "copy")
    labs.restart_node(lab, "a")
    out, back = Load("sae-a", "sae-b"), Load("sae-b", "sae-a")
    for load in (out, back):
        load.fetched = exchange(lab, load.master, load.slave, 10)
        seen.add(load.fetched)
    with kme(lab, "sae-a") as near:
        out.answered = near.get_keys("sae-b", n=10, wait=10)
        seen.add(out.answered)
    kill(lab, "a", signal.SIGTERM)
    before = heard(lab, "a", "KH-5101")

    put_back(tmp_path / "copy", directory, *names)
    labs.restart_node(lab, "a")
    until(lambda: heard(lab, "a", "KH-5101") > before, SUPPLY_AGAIN_S, "the alarm")
    assert reason in lab.log("a").read_text()
    for load in (out, back):
        supplies_again(lab, seen, load.master, load.slave)
        must_not_be_fetched(lab, load, load.fetched)
    # Keys that waited are burnt with the leases they were in, at both ends: none may come with other bits.
    with kme(lab, "sae-b") as other:
        for key in out.answered:
            try:
                assert other.fetch_key("sae-a", key.id) == key
            except KeyGone:
                continue
