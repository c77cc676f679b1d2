"""Published results that can be had again, beside ours, with what differs. Where a paper's figures were not to be had
the shape is all that is compared, and the line says so."""

from __future__ import annotations

import random
import sqlite3
import time
from collections.abc import Iterable
from fractions import Fraction
from itertools import pairwise
from pathlib import Path

from keyhop.comparison.metrics import jain
from keyhop.core.designs import DESIGNS
from keyhop.core.policy.admission import Link, Reservation, Service
from keyhop.core.policy.formatting import Kdf
from keyhop.core.policy.priority import ResponseWeight
from keyhop.core.policy.sharing import Weighted
from keyhop.simulator import runs, topology
from keyhop.simulator.arena import Arena
from keyhop.simulator.record import Demand, Scenario, Stream
from studies.all_designs import charts, queues, stores, variants
from studies.all_designs.beside import Beside
from studies.all_designs.sweeps import Figures
from studies.all_designs.verdicts import percent

RUNS_OF_ADMISSION = 20
SLOTS_OF_A_LINK = 20
PATHS = 3
KEY_BYTES = 32
ERASURES = 2000
GAIN = 0.9
REFERENCE = {8: 0.012, 64: 0.0015, 512: 0.0002}
"""Collisions by size of the working set, of a script that counts keys alone; the guide-lines have no figures."""
REFERENCE_SAME = 0.082
SECONDS = 60.0


def all_results(figures: dict[str, Figures], out: Path) -> list[Beside]:
    return [
        toshiba_sharing(),
        toshiba_erasing(figures["erasing"], out),
        quantum_canada(figures["sets"]),
        *admission(),
        ddka(),
        stores.preparing(),
        queues.hhqa(),
        kisti(figures["derivation"]),
        nec(),
    ]


def toshiba_sharing() -> Beside:
    """AT-TOSHIBA-1: demands of 100, 200 and 100 kbit/s on a path of 200."""
    demands, link = (100_000, 200_000, 100_000), 200_000
    sharing = DESIGNS["toshiba.2016"].sharing
    assert isinstance(sharing, Weighted)
    shares = [int(share) for share in sharing.shares(demands, [link])]
    streams = tuple(Stream(f"client {n}", "alice", "bob", rate, 4096) for n, rate in enumerate(demands))
    asked = sorted(
        (round((k + 0.5) * 4096 / rate * 1e9), n)
        for n, rate in enumerate(demands)
        for k in range(int(rate * SECONDS / 4096))
    )
    made = tuple(
        Demand(number, at, f"client {n}", "alice", "bob", 4096, 5_000_000_000) for number, (at, n) in enumerate(asked)
    )
    record = runs.run(
        DESIGNS["toshiba.2016"], {frozenset(("alice", "bob")): link}, Scenario(streams, made), seconds=SECONDS, seed=1
    )
    got = [0] * len(demands)
    for demand, outcome in zip(record.scenario.demands, record.outcomes, strict=True):
        got[int(demand.stream.split()[1])] += demand.size_bits * (outcome.verdict == "supplied")
    rates = [bits / SECONDS / 1000 for bits in got]
    fair = jain([one / demand for one, demand in zip(got, demands, strict=True)]) or 0.0
    return Beside(
        "Toshiba 2016, sharing by demand (AT-TOSHIBA-1)",
        "50/100/50 kbit/s of 200, several applications served at once and fairly",
        f"rule {shares[0] // 1000}/{shares[1] // 1000}/{shares[2] // 1000}, Jain 1; whole run of {SECONDS:g} s "
        f"{rates[0]:.0f}/{rates[1]:.0f}/{rates[2]:.0f} kbit/s, Jain {fair:.3f}",
        "yes" if shares == [50_000, 100_000, 50_000] and fair > 0.98 else "no",
        "One link here; theirs was an emulation of a network whose other figures are not in the abstract.",
    )


def toshiba_erasing(found: Figures, out: Path) -> Beside:
    """T(n) = b / (t_use + t_erase / n): keys are used from a database of ours and erased n at a time."""
    rates = {n: _erase(out / f".erasing-{n}.sqlite", n) for n in variants.ERASED}
    one, most = rates[1], rates[max(rates)]
    use_s, erase_s = 1 / most, 1 / one - 1 / most
    enough = next((n for n in range(1, 100_000) if 1 / (use_s + erase_s / n) - one >= GAIN * (most - one)), max(rates))
    (load,) = found.loads()
    exposed = {
        n: estimate.median if (estimate := found.median(f"toshiba.2019~{n}", "exposure_bit_s", "W2", load)) else None
        for n in variants.ERASED
    }
    rising = one < min(rates[n] for n in variants.ERASED[1:])
    return Beside(
        "Toshiba 2019, keys erased in batches",
        "throughput rises with the batch and levels; 414 Mbit/s in their local key manager",
        ", ".join(f"n={n} {rate * KEY_BYTES * 8 / 1e6:.1f} Mbit/s" for n, rate in rates.items())
        + f"; t_use {use_s * 1e6:.0f} µs, t_erase {erase_s * 1e6:.0f} µs, {100 * GAIN:.0f} % of the gain at "
        f"n={enough}; used key present: " + ", ".join(f"n={n} {value or 0:.3g} bit·s" for n, value in exposed.items()),
        "shape" if rising else "no",
        "Rows of 32 bytes in SQLite on this machine, its clock; the shape is what is compared. What the batch costs is "
        "used key that is still there, which they do not report.",
        charts.lines(
            "erasing in batches", "keys in a batch", "Mbit/s",
            {"ours": [(n, rate * KEY_BYTES * 8 / 1e6) for n, rate in rates.items()]}, logarithmic=(True, False),
        ),
    )  # fmt: skip


def _erase(path: Path, n: int) -> float:
    """Keys per second."""
    path.unlink(missing_ok=True)
    database = sqlite3.connect(path)
    try:
        database.execute("PRAGMA journal_mode=WAL")
        database.execute("PRAGMA synchronous=FULL")
        database.execute("CREATE TABLE keys (id INTEGER PRIMARY KEY, bits BLOB)")
        count = max(n, ERASURES if n > 1 else ERASURES // 10)
        database.executemany("INSERT INTO keys VALUES (?, ?)", ((at, bytes(KEY_BYTES)) for at in range(count)))
        database.commit()
        began = time.perf_counter()
        for at in range(count):
            database.execute("SELECT bits FROM keys WHERE id = ?", (at,)).fetchone()
            if (at + 1) % n == 0 or at + 1 == count:
                database.execute("DELETE FROM keys WHERE id <= ?", (at,))
                database.commit()
        return count / (time.perf_counter() - began)
    finally:
        database.close()
        for suffix in ("", "-wal", "-shm"):
            path.with_name(path.name + suffix).unlink(missing_ok=True)


def quantum_canada(found: Figures) -> Beside:
    (load,) = found.loads()
    ours = {n: found.median(f"qcanada.working_set~{n}", "collision_rate", "W6", load) for n in variants.SET_SIZES}
    same = found.median(variants.SAME_END, "collision_rate", "W6", load)
    medians = [rate.median for rate in ours.values() if rate is not None]
    falling = all(one > other for one, other in pairwise(medians)) and len(medians) > 1
    return Beside(
        "Quantum Canada 2018, collisions by working set",
        "guide-lines without figures; a count of keys alone: same end 8.2 %, "
        + ", ".join(f"W={n} {100 * rate:.2f} %" for n, rate in REFERENCE.items()),
        f"same end {percent(same)}, " + ", ".join(f"W={n} {percent(rate)}" for n, rate in ours.items()),
        "shape" if falling else "no",
        "Here a request takes as many keys as its size needs, both ends also come short of key, and collided requests "
        "come again; the count has one key per request and never runs dry.",
        charts.lines(
            "collisions", "keys in the working set", "collided of taken",
            {
                "ours": [(n, rate.median if rate else None) for n, rate in ours.items()],
                "keys alone": list(REFERENCE.items()),
            },
            logarithmic=(True, True),
        ),
    )  # fmt: skip


def admission() -> list[Beside]:
    """Three trends on NSFNET, 14 nodes and 21 links of 20 slots; and what it brings to know all requests beforehand."""
    links, paths = _nsfnet()
    online = Reservation(of="slots")

    def success(requests: int, largest: int, slots: int, downward: bool = False, mtka: bool = False) -> float:
        total = Fraction(0)
        for seed in range(RUNS_OF_ADMISSION):
            draw = random.Random(f"admission {seed} {requests} {largest}")  # noqa: S311 no key comes of it
            services = [Service(str(n), draw.randint(1, largest), draw.choice(paths)) for n in range(requests)]
            if downward:
                services = [service._replace(amount=max(1, service.amount // 2)) for service in services]
            totals = dict.fromkeys(links, slots)
            found = online.match(services, totals) if mtka else online.admit(services, totals)
            total += found.success
        return float(total / RUNS_OF_ADMISSION)

    def trend(values: Iterable[float]) -> str:
        return "/".join(f"{value:.2f}" for value in values)

    def rises(values: list[float]) -> bool:
        return all(one <= other for one, other in pairwise(values))

    varied = [success(300, largest, SLOTS_OF_A_LINK) for largest in (8, 4, 2, 1)]
    wider = [success(300, 4, slots) for slots in (10, 20, 40, 80)]
    modified = [success(n, 8, SLOTS_OF_A_LINK, downward=True) for n in (100, 300, 500)]
    plain = [success(n, 8, SLOTS_OF_A_LINK) for n in (100, 300, 500)]
    ahead = [success(n, 8, SLOTS_OF_A_LINK, mtka=True) for n in (100, 300, 500)]
    how = "NSFNET with 21 links of 20 slots, sizes even from 1; their set-up is not known."
    return [
        Beside(
            "SDQaaS 2019: success by variety of sizes, slots and modification",
            "rises when sizes vary less, links have more slots, services are modified downward",
            f"sizes to 8/4/2/1: {trend(varied)}; slots 10/20/40/80: {trend(wider)}; 100/300/500 requests, modified "
            f"{trend(modified)}, not {trend(plain)}",
            "shape"
            if rises(varied) and rises(wider) and all(m >= p for m, p in zip(modified, plain, strict=True))
            else "no",
            how,
        ),
        Beside(
            "MTKA 2019: all requests known beforehand",
            "choosing the order by matching degree admits more",
            f"success at 100/300/500 requests: {trend(ahead)}, as they come {trend(plain)}",
            "shape" if all(a >= p for a, p in zip(ahead, plain, strict=True)) else "no",
            how + " Orders tried: as they come, by load upwards and downwards.",
        ),
    ]


def _nsfnet() -> tuple[list[Link], list[tuple[tuple[Link, ...], ...]]]:
    network = topology.load_builtin("nsfnet_14")
    # Relays that the library puts on long spans are no nodes of that network.
    spans = {tuple(sorted((link.part_of or link.id).split("-", 1))) for link in network.links}
    links: list[Link] = sorted((one, other) for one, other in spans)
    around: dict[str, list[str]] = {}
    for one, other in links:
        around.setdefault(one, []).append(other)
        around.setdefault(other, []).append(one)
    pairs = [(one, other) for one in sorted(around) for other in sorted(around) if one < other]
    return links, [tuple(_shortest(around, *pair)) for pair in pairs]


def _shortest(around: dict[str, list[str]], source: str, target: str) -> list[tuple[Link, ...]]:
    found: list[tuple[Link, ...]] = []
    waiting: list[tuple[str, ...]] = [(source,)]
    while waiting and len(found) < PATHS:
        path = waiting.pop(0)
        if path[-1] == target:
            found.append(tuple((min(span), max(span)) for span in pairwise(path)))
            continue
        waiting += [(*path, near) for near in sorted(around[path[-1]]) if near not in path]
    return found


def ddka() -> Beside:
    low, high = 0.0, 1.0
    while high - low > 1e-6:
        omega = (low + high) / 2
        small, large = (ResponseWeight(omega=omega).weight(*pair) for pair in ((128, 1), (2048, 5)))
        low, high = (omega, high) if small < large else (low, omega)

    def order(omega: float) -> str:
        rule = ResponseWeight(omega=omega)
        return " ".join(str(s) for s, level in sorted(variants.SIZES_AND_LEVELS, key=lambda pair: rule.weight(*pair)))

    return Beside(
        "DDKA 2022: the order of requests flips with omega",
        "small keys first for small omega, high security first for large; no figures in reach",
        f"omega 0.5: {order(0.5)}; 0.8: {order(0.8)}; 0.85: {order(0.85)}; 128 and 2048 change places at {low:.4f}",
        "yes" if abs(low - 0.8251) < 1e-3 else "no",
        "By the published formula; how large the levels are is ours.",
    )


def kisti(found: Figures) -> Beside:
    form = DESIGNS["kisti"].formatting.supply
    assert isinstance(form, Kdf)
    limit = 255 * 256
    parents = form.parents(1, limit), form.parents(1, limit + 1)
    over = max(found.loads())
    success = found.median(variants.RAW_FIRST, "success", "W2", over)
    its = found.median(variants.RAW_FIRST, "its_ratio", "W2", over)
    return Beside(
        "KISTI 2022: the limit of HKDF, success against security",
        "65,280 bits of one parent (RFC 5869); keys of any size although key is short",
        f"{limit:,} bits need {parents[0]} parent, one more {parents[1]}; at load {over:g} success {percent(success)}, "
        f"ITS {percent(its)}",
        "yes" if parents == (1, 2) else "no",
        "Their curves are not in reach; ours show both sides of the trade.",
    )


def nec() -> Beside:
    """AT-NEC-3: ten terminals around one relay node, a file for every ordered pair."""
    links = {frozenset(("RN", f"T{n:02}")): 4096 * 20 for n in range(10)}
    arena = Arena(DESIGNS["nec.fixed"], links, Scenario((), ()), seed=1)
    arena.run(20.0)
    pools = [line for line in arena.lines() if line.distant and line.run.units]
    given = sum(line.book.R for line in arena.lines() if not line.distant and line.own == "RN")
    made = sum(line.book.N + line.book.T for line in pools)
    # Of each file one end received it (N) and the other kept it (T); the relay node used two files of links.
    ratio = given / (made / 2) if made else 0.0
    return Beside(
        "NEC: files of links for files of pairs",
        "ten terminals: 90 ordered pools, 180 files of links for 90 files of pairs",
        f"{len(pools)} ordered pools; {ratio:.2f} files of links at the relay node for each file of a pair",
        "yes" if len(pools) == 90 and abs(ratio - 2) < 0.01 else "no",
        "Pools are filled to their mark here, not with one file each: the ratio is what is compared.",
    )
