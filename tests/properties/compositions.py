"""Random cuts, joins, relays, XORs and derivations of keys beside an exact account of what each rests on.

`python -m tests.properties.compositions --count 1000000 [--seed S]` runs many and prints what was seen.
"""

from __future__ import annotations

import argparse
import random
import time
from collections import Counter
from fractions import Fraction
from typing import NamedTuple

from keyhop.core import epsilon as epsilons
from keyhop.core import label as labels
from keyhop.core.constraints import Constraints, admits
from keyhop.core.label import Grade, Label
from keyhop.core.model import NodeId

FINE = 10**60
"""The account is kept in finer units than the labels, so that their rounding would show."""
POOL = 64
BLOCKS_LIMIT = 24
NODES = tuple(NodeId(name) for name in "abcdefgh")

Formula = tuple[object, ...]
"""("block", name) | ("all", …) | ("any", …) | ("never",): when the key is as good as ideal."""


class Made(NamedTuple):
    label: Label
    rests_on: frozenset[str]
    """If none of these blocks is bad, the key is ideal."""
    its: bool
    formula: Formula


class Compositions:
    def __init__(self, seed: int, *, coarse: bool = False) -> None:
        """`coarse`: epsilons so large that failures can be counted."""
        self.random = random.Random(seed)
        self.coarse = coarse
        self.true: dict[str, int] = {}
        self.exchanges = 0
        self.seen: Counter[str] = Counter()
        self.pool = [self.fresh() for _ in range(POOL)]

    def fresh(self) -> Made:
        one, other = self.random.sample(NODES, 2)
        number = len(self.true)
        name = f"{number}"
        if self.coarse:
            true = self.random.randrange(1, 400) * FINE // 1000
        else:
            # Decimals as modules declare them, and figures that are no multiple of any unit of ours.
            exponent = self.random.randrange(6, 14)
            true = self.random.choice((FINE // 10**exponent, self.random.randrange(1, FINE // 10**exponent)))
        self.true[name] = true
        made = labels.block(
            f"{one}-{other}",
            number,
            (one, other),
            self.random.randrange(10**12),
            epsilon=epsilons.epsilon(Fraction(true, FINE)),
            vendor=self.random.choice("uvwxyz"),
        )
        return Made(made, frozenset((name,)), True, ("block", name))

    def exchange(self) -> Made:
        self.exchanges += 1
        made = labels.exchanged("ml_kem", "a-b", self.exchanges, (NODES[0], NODES[1]), 0)
        return Made(made, frozenset(), False, ("never",))

    def step(self) -> Made:
        """One more key, put in the place of an old one."""
        verb = self.random.choice(("merge", "relay", "relay", "split", "xor", "xor", "combine", "derive"))
        made = getattr(self, f"_{verb}")()
        self.seen[verb] += 1
        if len(made.label.origins) > BLOCKS_LIMIT or not made.its:
            # Derived keys are tried, too, but must not take over.
            self.pool[self.random.randrange(POOL)] = self.fresh() if self.random.random() < 0.8 else made
        else:
            self.pool[self.random.randrange(POOL)] = made
        if len(made.label.origins) > 2 * BLOCKS_LIMIT:
            self.pool = [one if len(one.label.origins) <= BLOCKS_LIMIT else self.fresh() for one in self.pool]
        return made

    def epsilon_of(self, made: Made) -> int:
        """By the union bound, in the fine unit."""
        return min(FINE, sum(map(self.true.__getitem__, made.rests_on)))

    def check(self, made: Made) -> None:
        """Never above the bound that was asked, whatever is asked; nothing from a KDF is `its`."""
        true, key = self.epsilon_of(made), made.label
        claimed = key.epsilon
        if not made.its:
            assert claimed is None and key.grade is not Grade.ITS
            assert admits(key, ITS_ONLY, 0) and admits(key, ANY_EPSILON, 0)
            self.seen["not its"] += 1
            return
        assert claimed is not None and claimed * (FINE // epsilons.ONE) >= true
        # As near as can be asked from both sides, and anywhere.
        asked = self.random.choice((true, true - 1, true + 1, int(true * self.random.uniform(0.5, 2.0))))
        if not FINE // epsilons.ONE <= asked <= FINE:
            return
        demanded = Constraints(max_epsilon=epsilons.bound(Fraction(asked, FINE)), its_only=True)
        if admits(key, demanded, 0):
            self.seen["refused"] += 1
        else:
            assert true <= asked
            self.seen["given"] += 1

    def _pick(self, number: int) -> list[Made]:
        return self.random.sample(self.pool, number)

    def _merge(self) -> Made:
        parts = self._pick(self.random.randrange(2, 5))
        return _all(labels.concatenated([part.label for part in parts]), parts)

    def _relay(self) -> Made:
        payload, *pads = self._pick(self.random.randrange(2, 6))
        path = tuple(self.random.sample(NODES, len(pads) + 2))
        return _all(labels.relayed(payload.label, [pad.label for pad in pads], path), [payload, *pads])

    def _split(self) -> Made:
        (whole,) = self._pick(1)
        return whole._replace(label=labels.split(whole.label))

    def _xor(self) -> Made:
        shares = self._independent()
        if len(shares) < 2:
            return self._combine()
        return self._either(labels.xored([share.label for share in shares]), shares)

    def _combine(self) -> Made:
        share, exchange = self._pick(1)[0], self.exchange()
        return self._either(labels.xored([share.label, exchange.label]), [share, exchange])

    def _derive(self) -> Made:
        shares = [*self._independent(), *([self.exchange()] if self.random.random() < 0.5 else [])]
        made = labels.derived([share.label for share in shares])
        return Made(made, frozenset(), False, ("never",))

    def _independent(self) -> list[Made]:
        chosen: list[Made] = []
        for one in self._pick(self.random.randrange(2, 5)):
            if all(one.label.origins.isdisjoint(other.label.origins) for other in chosen):
                chosen.append(one)
        return chosen

    def _either(self, made: Label, shares: list[Made]) -> Made:
        certain = [share for share in shares if share.its]
        best = min(certain, key=self.epsilon_of).rests_on if certain else frozenset()
        return Made(made, best, bool(certain), ("any", *(share.formula for share in shares)))


ITS_ONLY = Constraints(its_only=True)
ANY_EPSILON = Constraints(max_epsilon=epsilons.ONE)


def _all(made: Label, parts: list[Made]) -> Made:
    rests_on = frozenset().union(*(part.rests_on for part in parts))
    return Made(made, rests_on, all(part.its for part in parts), ("all", *(part.formula for part in parts)))


def holds(formula: Formula, good: frozenset[str]) -> bool:
    match formula:
        case ("block", name):
            return name in good
        case ("all", *parts):
            return all(holds(part, good) for part in parts)  # type: ignore[arg-type]
        case ("any", *parts):
            return any(holds(part, good) for part in parts)  # type: ignore[arg-type]
    return False


def blocks_of(formula: Formula) -> frozenset[str]:
    if formula[0] == "block":
        return frozenset((str(formula[1]),))
    return frozenset().union(*(blocks_of(part) for part in formula[1:]))  # type: ignore[arg-type]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=1_000_000)
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    made, began = Compositions(asked.seed), time.perf_counter()
    for _ in range(asked.count):
        made.check(made.step())
    seconds = time.perf_counter() - began
    print(f"{asked.count} compositions, seed {asked.seed}, {seconds:.1f} s: none above its bound")
    print(", ".join(f"{name} {count}" for name, count in sorted(made.seen.items())))


if __name__ == "__main__":
    main()
