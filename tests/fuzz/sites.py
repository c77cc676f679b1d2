"""Throws words that fit their shapes, or nearly, at sites of every design: `python -m tests.fuzz.sites`."""

import argparse
import random
from itertools import pairwise

from tests.acceptance.benches import Bench

from keyhop.core.composed.nouns.messages import Kx, KxArrived
from keyhop.core.composed.nouns.shapes import SHAPES, Bounds
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.synchronisation import Verb

NUMBERS = (0, 1, 2, 3, 7, 8, 64, 100, 256, 512, 4096, -1, 1 << 20, 1 << 62)


def number(choices: random.Random, bounds: Bounds) -> int:
    return max(bounds.least, min(bounds.most, choices.choice(NUMBERS)))


def message(choices: random.Random, made: Bench, at: str, peer: str, word: str) -> Kx:
    line, shape = made.sites[at].links[peer], SHAPES[word]
    units = [*line.run.free, *(part for pool in line.run.pools.values() for part in pool)]
    start, end = choices.choice(units or [(0, 4)])
    stop = min(end, start + choices.choice((1, 2, 8, 32)))
    counts = tuple(number(choices, bounds) for bounds in shape.counts + shape.more * choices.randrange(3))
    words = ["", at, peer, "A>B", "B>A", "s", "s1", "256", "application", "SESSIONS"]
    names = tuple(choices.choice(words) for _ in range(choices.randint(shape.names.least, shape.names.least + 1)))
    if shape.names.least > 1 and choices.random() < 0.7:
        names = (*names[: choices.randrange(3)], *choices.choice([(peer, at), ("A", "B", "C"), ("C", "B", "A")]))
    to = choices.choice([*line.run.pools, *words, ">", f"{peer}/1"])
    kind, numbered = shape.kind, line.talk._next_heard
    if kind == "ask":
        numbered = choices.randrange(1 << 40)
    ranges = ((start, stop),) * (shape.ranges.most > 0)
    return Kx(word, Verb.ASSIGN, numbered, ranges, to, counts, names, choices.random() < 0.8, kind)


def look(design: str, seed: int, rounds: int) -> int:
    """Only ValueError may come out, books stay balanced, no unit lies in two queues. Gives how many were taken."""
    choices, taken = random.Random(f"{design} {seed}"), 0
    made = Bench(DESIGNS[design], "A-B", "B-C", tag_bits=0)
    for _ in range(rounds):
        for link in ("A-B", "B-C"):
            if choices.random() < 0.2:
                made.give(8192, link)
        at, peer = choices.choice([("A", "B"), ("B", "A"), ("B", "C"), ("C", "B")])
        kx = message(choices, made, at, peer, choices.choice(sorted(made.sites[at].links[peer].talk.handlers)))
        try:
            moves = made.sites[at].step(KxArrived(peer, kx), made.now)
        except ValueError:
            continue
        taken += 1
        made.perform(at, moves)
        try:
            made.go(0.5)
        except ValueError:
            # What one end was made to say, the other refuses.
            continue
    made.balanced()
    for site in made.sites.values():
        for line in site.lines():
            for run in line._runs.values():
                parts = sorted(part for queue in (run.free, *run.pools.values()) for part in queue)
                assert all(one[1] <= other[0] for one, other in pairwise(parts)), (design, line)
    return taken


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--designs", default=",".join(sorted(DESIGNS)))
    options = parser.parse_args()
    for design in options.designs.split(","):
        print(design, look(design, options.seed, options.rounds))


if __name__ == "__main__":
    main()
