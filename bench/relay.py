"""What a relay node can carry: global key per CPU second of the node in the middle of A - B - C.

`python -m bench.relay` runs the three real nodes in virtual time, with real vaults, real tags and pads, frames encoded
and decoded as on the wire, and a real SQLite store at B. Only the processor time spent for B is counted: taking the
frame apart, checking its tag, deciphering, ciphering, tagging, committing the used pads, putting the frame together.
TLS around it is not in the figure.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Frame, Send
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.rows import ROW_TYPES
from keyhop.core.policy.refill import ByDemand
from keyhop.core.policy.relay import HopByHop
from keyhop.daemon.store.sealing import NodeKey
from keyhop.daemon.store.sqlite import SqliteStore
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import MILLISECOND, Process, Timing, World
from keyhop.wire import frames

BLOCK_BYTES = 1 << 20


class Stopwatch:
    """Processor seconds spent inside the calls it is put around, nested calls counted once."""

    def __init__(self) -> None:
        self.spent_s = 0.0
        self._depth = 0

    def around(self, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*arguments: Any, **named: Any) -> Any:
            self._depth += 1
            begin = time.process_time()
            try:
                return call(*arguments, **named)
            finally:
                self._depth -= 1
                if not self._depth:
                    self.spent_s += time.process_time() - begin

        return timed


class RealDisk(SqliteStore):
    """The store of the measured node; the world never crashes it here."""

    forgets = 0


def link(one: str, other: str) -> bytes:
    return "-".join(sorted((one, other))).encode().ljust(16, b".")[:16]


def settings(names: str) -> list[NodeSettings]:
    made = []
    for at, name in enumerate(names):
        around = [names[i] for i in (at - 1, at + 1) if 0 <= i < len(names)]
        far = names[-1] if at == 0 else names[0]
        applications = (
            (Application(id=AppId(f"sae-{name}"), peers=frozenset({AppId(f"sae-{far}")})),)
            if at in (0, len(names) - 1)
            else ()
        )
        made.append(
            NodeSettings(
                node=NodeId(name),
                neighbours=tuple(Neighbour(node=NodeId(p), link=link(name, p), rate_bps=10**9) for p in around),
                applications=applications,
                stock_limit_bytes=1 << 30,
            )
        )
    return made


def build(folder: Path, measured: str = "b") -> tuple[World, Process, Stopwatch]:
    design = dataclasses.replace(
        DESIGNS["keyhop"],
        refill=ByDemand(min_bytes=1 << 28, max_bytes=1 << 29),
        relay=HopByHop(stock_share=1.0, source_share=1.0, neighbour_share=1.0, path_share=1.0),
    )
    timing = Timing(delay=(10_000, 10_000), commit=(10_000, 10_000), redial=(MILLISECOND, MILLISECOND))
    world = World(1, settings("abc"), design, NodeVault, timing)
    middle = world.processes[NodeId(measured)]
    middle.disk = RealDisk(folder / "node.db", NodeKey(bytes(32)), measured, ROW_TYPES)  # type: ignore[assignment]
    watch = Stopwatch()
    for name in ("turn", "_committed", "_release"):
        setattr(middle, name, watch.around(getattr(middle, name)))
    transmit, arrive = world.transmit, middle.feed

    def encoded(sender: str, send: Send) -> None:
        if sender != measured:
            transmit(sender, send)
            return
        frame = send.frame
        raw = watch.around(frames.encode)(frame.type, frame.position, frame.payload, frame.tag)
        (found,) = frames.FrameDecoder().feed(raw)
        transmit(sender, Send(send.peer, send.connection, Frame(*found[:2], found.payload, found.tag)))

    def fed(event: object) -> None:
        if isinstance(event, events.FrameArrived):
            raw = frames.encode(event.frame.type, event.frame.position, event.frame.payload, event.frame.tag)
            (found,) = watch.around(frames.FrameDecoder().feed)(raw)
            event = events.FrameArrived(
                event.peer, event.connection, Frame(found.type, found.position, found.payload, found.tag)
            )
        arrive(event)

    world.transmit = encoded  # type: ignore[method-assign]
    middle.feed = fed  # type: ignore[method-assign]
    return world, middle, watch


def measure(seconds: float, stock_mib: int) -> str:
    with tempfile.TemporaryDirectory(prefix="keyhop-bench-") as temporary:
        world, middle, watch = build(Path(temporary))
        world.start()
        world.run(world.now + NANOSECONDS)
        for number in range(2 * stock_mib):
            for one, other in (("a", "b"), ("b", "c")):
                bits = world.random.randbytes(BLOCK_BYTES)
                for here, there in ((one, other), (other, one)):
                    world.deliver_block(here, there, "m", number, bits)
            world.run(world.now + 20 * MILLISECOND)
        begun = received(world)
        watch.spent_s, deadline = 0.0, time.monotonic() + seconds
        while time.monotonic() < deadline and middle.node.context.pairs["c"].own_key.untouched > 4 * BLOCK_BYTES:
            world.run(world.now + 50 * MILLISECOND)
        carried = received(world) - begun
        rate = carried * 8 / watch.spent_s / 1e9
        batches = middle.node.context.counters.get("relay_hops", 0)
        return (
            f"relay through one node: {rate:.2f} Gbit/s of key per CPU second "
            f"({carried / 1e6:.1f} MB in {batches} batches, {watch.spent_s:.2f} CPU s at the middle node)"
        )


def received(world: World) -> int:
    """Bytes of global key that arrived at both ends: the node in the middle carries both directions."""
    total = 0
    for here, there in ("ac", "ca"):
        pair = world.processes[NodeId(here)].node.context.pairs.get(there)
        total += 0 if pair is None else pair.their_key.append
    return total


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--stock-mib", type=int, default=48)
    options = parser.parse_args()
    print(measure(options.seconds, options.stock_mib))


if __name__ == "__main__":
    main()
