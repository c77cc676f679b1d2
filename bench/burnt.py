"""Key bits burnt per key bit delivered: what agreement, leases, tags and statements cost a link, by its rate.

`python -m bench.burnt` runs two real nodes in virtual time, with real vaults and tags, over a link of each rate that
delivers a block of 64 KiB whenever it has one, cut as nodes cut it; the applications of both ends take 80 % of the rate
in keys of 256 bits, evenly. The figure is read from the ledgers of the owned runs of both ends: (A + Y + O + C) / D,
after a start of two blocks, or a second, that is not counted. Key of the pre-shared secret is no QKD key: not in it.
"""

from __future__ import annotations

import argparse

from bench.relay import link
from keyhop.core.designs import DESIGNS
from keyhop.core.model import NANOSECONDS, AppId, NodeId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.ledger import Account
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.world import MILLISECOND, Answered, Timing, World

BLOCK_BYTES = 1 << 16
KEY_BITS = 256
TAKEN_RATIO = 0.8
RATES_KBPS = [1, 10, 100, 1000, 10000]
LOST_ACCOUNTS = (Account.A, Account.Y, Account.O, Account.C)


def build(rate_bps: int) -> World:
    def node(name: str, peer: str) -> NodeSettings:
        return NodeSettings(
            node=NodeId(name),
            neighbours=(Neighbour(node=NodeId(peer), link=link(name, peer), rate_bps=rate_bps),),
            applications=(Application(id=AppId(f"sae-{name}"), peers=frozenset({AppId(f"sae-{peer}")})),),
            stock_limit_bytes=1 << 26,
        )

    timing = Timing(delay=(MILLISECOND, 2 * MILLISECOND), commit=(MILLISECOND, 2 * MILLISECOND))
    return World(1, [node("a", "b"), node("b", "a")], DESIGNS["keyhop"], NodeVault, timing)


def booked(world: World) -> dict[Account, int]:
    """Bytes in the books of the runs that each end owns."""
    total = dict.fromkeys(Account, 0)
    for here, there in ("ab", "ba"):
        pair = world.processes[NodeId(here)].node.context.pairs[there]
        for run in (pair.own_key, pair.own_tags):
            for account in Account:
                total[account] += run.book[account]
    return total


def measure(rate_bps: int, blocks: int) -> str:
    world = build(rate_bps)
    period = BLOCK_BYTES * 8 * NANOSECONDS // rate_bps
    # Both ends together take what is wanted of the rate.
    pause = int(2 * KEY_BITS * NANOSECONDS / (TAKEN_RATIO * rate_bps))
    refusals = 0

    def answered(answer: Answered) -> None:
        nonlocal refusals
        if answer.deliver.refusal is not None:
            refusals += 1

    def bring(number: int) -> None:
        bits = world.random.randbytes(BLOCK_BYTES)
        world.deliver_block("a", "b", "m", number, bits)
        world.deliver_block("b", "a", "m", number, bits)
        world.at(world.now + period, bring, number + 1)

    def ask(here: str, there: str) -> None:
        wanted = events.KeysWanted(world.request(), f"sae-{here}", f"sae-{there}", 1, KEY_BITS)
        world.processes[NodeId(here)].feed(wanted)
        world.at(world.now + pause, ask, here, there)

    world.on_answer.append(answered)
    world.start()
    world.run(world.now + NANOSECONDS)
    bring(0)
    begin = world.now + max(2 * period, NANOSECONDS)
    world.run(begin)
    before = booked(world)
    for here, there in ("ab", "ba"):
        ask(here, there)
    world.run(begin + max(blocks * period, 2 * NANOSECONDS))
    after = booked(world)
    change = {account: after[account] - before[account] for account in Account}
    delivered = change[Account.D]
    shares = "  ".join(f"{account.name} {change[account] / delivered:8.3%}" for account in LOST_ACCOUNTS)
    lost = sum(change[account] for account in LOST_ACCOUNTS) / delivered
    counted = f"{delivered / 1e6:.2f} MB delivered, {refusals} refused"
    return f"{rate_bps / 1e3:>10,.0f} kbit/s  {lost:8.3%}  {shares}  {counted}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kbps", type=int, nargs="*", default=RATES_KBPS)
    parser.add_argument("--blocks", type=int, default=40, help="of 64 KiB, per rate")
    options = parser.parse_args()
    print("key burnt per key delivered, by account")
    for rate_kbps in options.kbps:
        print(measure(rate_kbps * 1000, options.blocks), flush=True)


if __name__ == "__main__":
    main()
