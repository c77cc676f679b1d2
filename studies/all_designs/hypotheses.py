"""Nine hypotheses about key managers, each with what would make it fall.

A claim about every design of a kind falls with the first that is surely otherwise. "Surely" is the whole 95 % interval
over seeds; what lies across a bound is not decided.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from keyhop.comparison.statistics import Estimate, estimate
from keyhop.core.designs import DESIGNS, Design
from keyhop.core.designs.design import Access
from keyhop.core.policy.admission import Reservation
from keyhop.core.policy.formatting import Identity, SliceOnSupply, SplitMerge
from keyhop.core.policy.sharing import Proportional, Weighted
from keyhop.core.policy.storage import FixedBlock
from studies.all_designs import charts, variants
from studies.all_designs.sweeps import BASE, Figures
from studies.all_designs.verdicts import Verdict, above, below, every, percent, seconds

LOST_BY_BLOCKS = 0.5
LOST_BY_CUTS = 0.01
SAME_SHARE = 0.10
"""Two latencies nearer to each other than this part are one (H4)."""
UNDIVIDED = (0.05, 0.12)
"""What counts as about 8 % (H3)."""
SCALING = 2.0
"""The rate times the size of the set may differ by this factor and is still about 1/W (H3)."""
FULL_SUCCESS = 0.99
FAIR = 0.99
FAINT = 1e-9
STRAY = 0.05
"""How far the ITS ratio may lie from 1/rho (H7)."""


def all_verdicts(figures: dict[str, Figures]) -> list[Verdict]:
    return [test(figures) for test in TESTS]


def _names(chosen: Callable[[Design], bool]) -> list[str]:
    return [name for name in BASE if chosen(DESIGNS[name])]


def _loads(figures: Figures, wanted: Callable[[float], bool]) -> list[float]:
    return [load for load in figures.loads() if wanted(load)]


def _median(found: Estimate | None) -> float | None:
    return None if found is None else found.median


def whole_blocks(figures: dict[str, Figures]) -> Verdict:
    found = figures["all"]
    load = min(found.loads(), key=lambda load: abs(load - 0.8))
    lost = {name: estimate(found.ratio(name, "O", "OD", "W3", load).values()) for name in BASE}
    blocks = _names(lambda d: isinstance(d.formatting.supply, Identity) and isinstance(d.storage, FixedBlock))
    cuts = _names(lambda d: isinstance(d.formatting.supply, SliceOnSupply | SplitMerge))
    claims = [above(lost[name], LOST_BY_BLOCKS) for name in blocks]
    claims += [below(lost[name], LOST_BY_CUTS) for name in cuts]
    price = {name: found.median(name, "tag_overhead", "W3", load) for name in (*blocks, *cuts)}
    return Verdict(
        "H1",
        "Supply in whole blocks loses more than half of the key on W3, slicing and split/merge lose none, at a "
        "measurable price in tag bits.",
        every(claims),
        (
            f"Lost to rounding at load {load:g}, O/(O+D), whole blocks: "
            + ", ".join(f"{name} {percent(lost[name])}" for name in blocks),
            "sliced or split and merged: " + ", ".join(f"{name} {percent(lost[name])}" for name in cuts),
            "tag bits per delivered bit: " + ", ".join(f"{name} {percent(cost)}" for name, cost in price.items()),
            "What a block loses depends on its size: about half of one at each request, so much of W3's 2052 bits.",
        ),
        charts.bars("H1", "O/(O+D) on W3", {name: _median(lost[name]) for name in (*blocks, *cuts)}),
    )


def sessions(figures: dict[str, Figures]) -> Verdict:
    found = figures["division"]
    low, high = min(found.loads()), max(found.loads())
    fairness, success = {}, {}
    for name, other in variants.ENC_DEC_OF.items():
        fairness[name] = found.gap(name, other, "fairness", "W7", high)
        success[name] = found.gap(name, other, "success", "W7", low)
    return Verdict(
        "H2",
        "Session buffers beat pools by direction on fairness in overload, and lose on success under churn below it.",
        every([*(above(gap, 0.0) for gap in fairness.values()), *(below(gap, 0.0) for gap in success.values())]),
        (
            f"Jain's index with sessions minus without, W7, load {high:g}: "
            + ", ".join(f"{name} {percent(gap)}" for name, gap in fairness.items()),
            f"success with sessions minus without, W7, load {low:g}: "
            + ", ".join(f"{name} {percent(gap)}" for name, gap in success.items()),
            "The same design each time, with division enc_dec in place of its own: nothing else differs.",
        ),
        charts.bars(
            "H2",
            "with sessions minus without: fairness in overload, success below",
            {f"{name}, fairness": _median(gap) for name, gap in fairness.items()}
            | {f"{name}, success": _median(gap) for name, gap in success.items()},
        ),
    )


def collisions(figures: dict[str, Figures]) -> Verdict:
    found, sets = figures["all"], figures["sets"]
    load = min(sets.loads())
    clean = _names(lambda d: Access.TAKEN not in (d.access.local, d.access.global_))
    rates = {name: found.median(name, "collision_rate", "W6", found.loads()[0]) for name in clean}
    claims: list[bool | None] = [below(rate, FAINT) for rate in rates.values()]
    by_size = {
        size: sets.median(f"qcanada.working_set~{size}", "collision_rate", "W6", load) for size in variants.SET_SIZES
    }
    same = sets.median(variants.SAME_END, "collision_rate", "W6", load)
    products = [size * rate.median for size, rate in by_size.items() if rate is not None]
    claims.append(max(products) <= SCALING * min(products) if products and min(products) > 0 else None)
    claims += [above(same, UNDIVIDED[0]), below(same, UNDIVIDED[1])]
    return Verdict(
        "H3",
        "Pools by direction never collide, working sets about once in W, an undivided pool about 8 % of the time (W6).",
        every(claims),
        (
            "Collided keys per key taken, designs without taken access: at most "
            + percent(max((rate for rate in rates.values() if rate), key=lambda rate: rate.median, default=None)),
            "working sets: " + ", ".join(f"W={size} {percent(rate)}" for size, rate in by_size.items()),
            f"both ends from the same side: {percent(same)}",
            "W times the rate: " + ", ".join(f"{product:.3f}" for product in products),
        ),
        charts.lines(
            "H3",
            "keys in the working set",
            "collided keys per key taken",
            {"ours": [(size, _median(rate)) for size, rate in by_size.items()]},
            logarithmic=(True, True),
        ),
    )


def thresholds(figures: dict[str, Figures]) -> Verdict:
    found = figures["thresholds"]
    (load,) = found.loads()
    claims: list[bool | None] = []
    told = []
    bars: dict[str, float | None] = {}
    for name, without in variants.WITHOUT_THRESHOLDS.items():
        tail = found.gap(name, without, "latency_p99_s", "W2", load, "line3")
        middle = found.gap(name, without, "latency_p50_s", "W2", load, "line3")
        usual = found.median(without, "latency_p50_s", "W2", load, "line3")
        near = SAME_SHARE * usual.median if usual else 0.0
        claims += [below(tail, 0.0), below(middle, near), above(middle, -near)]
        told.append(f"{name}: p99 {seconds(tail)}, p50 {seconds(middle)} of {seconds(usual)}")
        bars |= {f"{name}, p99": _median(tail), f"{name}, p50": _median(middle)}
    return Verdict(
        "H4",
        "Thresholds move the 99th percentile of latency, not the median.",
        every(claims),
        (f"With thresholds minus without, line3, W2, load {load:g}: " + "; ".join(told),),
        charts.bars("H4", "latency with thresholds minus without, s", bars),
    )


def batches(figures: dict[str, Figures]) -> Verdict:
    found = figures["batches"]
    (load,) = found.loads()
    cost = {n: found.median(f"ait~{n}", "tag_overhead", "W8", load) for n in variants.BATCHES}
    gone = {n: estimate(found.ratio(f"ait~{n}", "Y", "D", "W8", load).values()) for n in variants.BATCHES}
    one, four, most = variants.BATCHES[0], variants.BATCHES[1], variants.BATCHES[-1]
    claims: list[bool | None] = [None, None]
    first, second, last = cost[one], cost[four], cost[most]
    if first and second and last and gone[one] and gone[most]:
        claims = [
            second.median <= first.median / (four / 2),
            gone[most].median - gone[one].median > 0,  # type: ignore[union-attr]
        ]
    return Verdict(
        "H5",
        "One MAC for a batch cuts tag bits per delivered bit by the size of the batch, until lost batches outweigh it.",
        every(claims),
        (
            f"W8, load {load:g}, tags per delivered bit: " + ", ".join(f"n={n} {percent(c)}" for n, c in cost.items()),
            "lost key per delivered bit: " + ", ".join(f"n={n} {percent(y)}" for n, y in gone.items()),
            "Every key that is asked for costs messages of its own, which no batch makes fewer.",
        ),
        charts.lines(
            "H5",
            "keys in a batch",
            "per delivered bit",
            {
                "tags": [(n, _median(found)) for n, found in cost.items()],
                "lost": [(n, _median(found)) for n, found in gone.items()],
            },
            logarithmic=(True, False),
        ),
    )


def reservation(figures: dict[str, Figures]) -> Verdict:
    found = figures["all"]
    reserved = _names(lambda d: isinstance(d.admission, Reservation) and d.admission.of != "rate")
    low = min(_loads(found, lambda load: load < 0.8), default=min(found.loads()))
    broken = {
        (name, load): found.median(name, "qos_violations_admitted_guaranteed", "W5", load)
        for name in reserved
        for load in found.loads()
    }
    use = {name: found.median(name, "key_utilisation", "W5", low) for name in BASE}
    others = [value.median for name, value in use.items() if value is not None and name not in reserved]
    claims: list[bool | None] = [below(rate, FAINT) for rate in broken.values()]
    for name in reserved:
        mine = use[name]
        claims.append(None if mine is None or not others else mine.median <= min(others))
    return Verdict(
        "H6",
        "Reservation breaks no promise to admitted streams, and has the lowest utilisation below a load of 0.8.",
        every(claims),
        (
            "1 s windows of admitted guaranteed streams with a broken promise, W5: "
            + ", ".join(f"{name} at {load:g}: {percent(rate)}" for (name, load), rate in broken.items()),
            f"delivered, of key that left the stores, load {low:g}: "
            + ", ".join(f"{name} {percent(use[name])}" for name in reserved)
            + (f"; lowest of the others {100 * min(others):.1f} %" if others else ""),
            "SECOQC reserves a rate and promises nothing, so it is not among these.",
        ),
        charts.bars("H6", f"key utilisation, W5, load {low:g}", {name: _median(value) for name, value in use.items()}),
    )


def derivation(figures: dict[str, Figures]) -> Verdict:
    found = figures["derivation"]
    claims: list[bool | None] = []
    told = []
    loads = found.loads()
    for load in loads:
        success = found.median(variants.RAW_FIRST, "success", "W2", load)
        its = found.median(variants.RAW_FIRST, "its_ratio", "W2", load)
        always = found.median("kisti", "its_ratio", "W2", load)
        claims += [above(success, FULL_SUCCESS), below(always, FAINT)]
        wanted = min(1.0, 1.0 / load)
        claims.append(None if its is None else abs(its.median - wanted) <= STRAY)
        told.append(f"load {load:g}: success {percent(success)}, ITS {percent(its)} (1/rho {100 * wanted:.0f} %), "
                    f"always derived {percent(always)}")  # fmt: skip
    return Verdict(
        "H7",
        "Derivation only in need keeps success at 1 while the ITS ratio falls as 1/rho; derivation always gives no ITS "
        "key at any load.",
        every(claims),
        ("; ".join(told), "Stores are empty at the start, and nothing can be derived of nothing."),
        charts.lines(
            "H7",
            "load",
            "of requests, of bits",
            {
                "success, derived in need": [
                    (load, _median(found.median(variants.RAW_FIRST, "success", "W2", load))) for load in loads
                ],
                "ITS, derived in need": [
                    (load, _median(found.median(variants.RAW_FIRST, "its_ratio", "W2", load))) for load in loads
                ],
                "ITS, derived always": [
                    (load, _median(found.median("kisti", "its_ratio", "W2", load))) for load in loads
                ],
            },
        ),
    )


def proportional(figures: dict[str, Figures]) -> Verdict:
    found = figures["all"]
    sharing = _names(lambda d: isinstance(d.sharing, Proportional | Weighted))
    over = _loads(found, lambda load: load > 1)
    fair = {(name, load): found.median(name, "fairness", "W5", load) for name in sharing for load in over}
    broken = {
        (name, load): found.median(name, "qos_violations_guaranteed", "W5", load) for name in sharing for load in over
    }
    return Verdict(
        "H8",
        "Proportional sharing has Jain 1 in every overload, and breaks the promise of a least rate to all.",
        every([*(above(value, FAIR) for value in fair.values()), *(above(value, 0.0) for value in broken.values())]),
        (
            "Jain's index, W5: " + ", ".join(f"{n} at {load:g}: {percent(value)}" for (n, load), value in fair.items()),
            "windows of guaranteed streams with a broken promise: "
            + ", ".join(f"{n} at {load:g}: {percent(value)}" for (n, load), value in broken.items()),
        ),
        charts.bars("H8", "Jain's index, W5", {f"{n}, {load:g}": _median(value) for (n, load), value in fair.items()}),
    )


def weights(figures: dict[str, Figures]) -> Verdict:
    found = figures["weights"]
    (load,) = found.loads()
    omegas = sorted(float(name.partition("~")[2]) for name in found.designs())
    gaps: dict[float, Estimate | None] = {}
    for omega in omegas:
        name = f"ddka~{omega:g}"
        small = found.of(name, "success_128", "W2", load)
        large = found.of(name, "success_2048", "W2", load)
        pairs = ((small.get(seed), large.get(seed)) for seed in small)
        gaps[omega] = estimate(one - other for one, other in pairs if one is not None and other is not None)
    claims = [above(gap, 0.0) for omega, gap in gaps.items() if omega < 0.79]
    claims += [below(gap, 0.0) for omega, gap in gaps.items() if omega > 0.86]
    return Verdict(
        "H9",
        "By response weight small keys gain and those of 2048 bits starve for omega below 0.79; the reverse above "
        "0.86.",
        every(claims),
        (
            f"Success of 128 bits minus that of 2048, load {load:g}, requests of a second at one instant: "
            + ", ".join(f"omega {omega:g}: {percent(gap)}" for omega, gap in gaps.items()),
            "DDKA keeps a store of equal size for each key size; who is first in line draws on others' stores only by "
            "joining smaller keys.",
        ),
        charts.lines(
            "H9",
            "omega",
            "success",
            {
                f"{size} bits": [
                    (omega, _median(found.median(f"ddka~{omega:g}", f"success_{size}", "W2", load))) for omega in omegas
                ]
                for size, _ in variants.SIZES_AND_LEVELS
            },
        ),
    )


TESTS: Iterable[Callable[[dict[str, Figures]], Verdict]] = (
    whole_blocks,
    sessions,
    collisions,
    thresholds,
    batches,
    reservation,
    derivation,
    proportional,
    weights,
)
