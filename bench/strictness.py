"""What strict bounds cost: which part of all pairs of a real network gets a key at each bound on epsilon.

`python -m bench.strictness [--network NAME] [--seed S]`. Every link's module declares an epsilon drawn between 1e-12
and 1e-9; keys go over the path with the least sum, alone or XORed over two paths without a common relay. Labels and
bounds are those of the product; no time, no bits.
"""

from __future__ import annotations

import argparse
import random
from itertools import combinations, pairwise

import networkx  # type: ignore[import-untyped]

from keyhop.core import epsilon as epsilons
from keyhop.core import label as labels
from keyhop.core.constraints import Constraints, admits
from keyhop.core.label import Label
from keyhop.core.model import NodeId
from keyhop.simulator import topology

BOUNDS = ("1e-8", "3e-9", "1e-9", "3e-10", "1e-10", "3e-11", "1e-11", "3e-12", "1e-12")


def measure(network: str, seed: int) -> str:
    built = topology.load_builtin(network)
    graph, draw = networkx.Graph(), random.Random(seed)
    for link in built.links:
        graph.add_edge(*link.ends, epsilon=epsilons.epsilon(f"{10 ** draw.uniform(-12, -9):.3e}"))
    singles, doubles, total = [], [], 0
    for source, target in combinations(sorted(name for name, node in built.nodes.items() if not node.inserted), 2):
        total += 1
        path = networkx.shortest_path(graph, source, target, "epsilon")
        first = _relayed(graph, path)
        singles.append(first)
        rest = graph.copy()
        rest.remove_nodes_from(path[1:-1])
        if len(path) == 2:
            rest.remove_edge(*path)
        if networkx.has_path(rest, source, target):
            doubles.append(
                labels.xored([first, _relayed(rest, networkx.shortest_path(rest, source, target, "epsilon"))])
            )
    lines = [f"{network}: {total} pairs, {len(doubles)} with two disjoint paths (seed {seed})"]
    lines.append("max_epsilon   one path   two paths, min_trust partial")
    for bound in BOUNDS:
        one = _met(singles, Constraints(max_epsilon=epsilons.bound(bound), its_only=True))
        strict = Constraints(max_epsilon=epsilons.bound(bound), its_only=True, min_trust=labels.Trust.PARTIAL)
        either = _met(doubles, strict)
        lines.append(f"{bound:>11}   {one / total:8.1%}   {either / total:8.1%}")
    return "\n".join(lines)


def _relayed(graph: networkx.Graph, path: list[str]) -> Label:
    hops = [
        labels.block(f"{one}-{other}", 0, (NodeId(one), NodeId(other)), 0, epsilon=graph.edges[one, other]["epsilon"])
        for one, other in pairwise(path)
    ]
    return labels.relayed(hops[0], hops[1:], tuple(map(NodeId, path)))


def _met(keys: list[Label], demanded: Constraints) -> int:
    return sum(not admits(key, demanded, 0) for key in keys)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--network", default="nsfnet_14")
    parser.add_argument("--seed", type=int, default=1)
    asked = parser.parse_args()
    print(measure(asked.network, asked.seed))


if __name__ == "__main__":
    main()
