"""Latency of a key between neighbours and over four hops, with filled pools: `python -m bench.hops`.

Five real nodes in a line, real TLS, links of 1 Mbit/s that were filled before. Two pairs of applications, one at both
ends of one link, one at both ends of the line, ask in turn, one request at a time: enc_keys at the one key manager,
dec_keys at the other. The ratio compares requests that follow one another.
"""

from __future__ import annotations

import argparse
import contextlib
import tempfile
import time
from itertools import pairwise
from pathlib import Path
from statistics import median, quantiles

from bench.measure import MeasureError
from keyhop.client.core import KeyhopError
from keyhop.client.sync import Kme
from keyhop.emulator import lab as labs
from keyhop.emulator import network
from keyhop.emulator.lab import Lab
from keyhop.emulator.network import Plan, PlannedLink, PlannedNode

NODES = "abcde"
RATE_BPS = 1_000_000
BLOCK_BYTES = 1 << 16
FILL_TIMEOUT_S = 60.0
PAUSE_S = 0.005
FAR_POOL_KEYS = 100


def plan() -> Plan:
    return Plan(
        name="bench-hops",
        nodes=tuple(PlannedNode(id=name, applications=(f"sae-{name}",)) for name in NODES),
        links=tuple(
            PlannedLink(
                id=one + other,
                ends=(one, other),
                block_bytes=BLOCK_BYTES,
                block_period_s=BLOCK_BYTES * 8 / RATE_BPS,
                qber_ratio=0.02,
                prefill_bytes=4 << 20,
            )
            for one, other in pairwise(NODES)
        ),
        stock_bytes=4 << 20,
    )


def kme(lab: Lab, application: str) -> Kme:
    issued, authority = lab.credentials(application)
    address = lab.node(application.removeprefix("sae-")).etsi014
    return Kme(f"https://{address}", cert=issued.certificate, key=issued.key, ca=authority)


def wait_until_filled(first: Kme) -> None:
    deadline = time.monotonic() + FILL_TIMEOUT_S
    while time.monotonic() < deadline:
        with contextlib.suppress(KeyhopError):
            if first.status("sae-e").stored_keys >= FAR_POOL_KEYS:
                return
            # A global pool follows demand.
            first.get_key("sae-e")
        time.sleep(0.05)
    raise MeasureError(f"the pool of a and e did not reach {FAR_POOL_KEYS} keys within {FILL_TIMEOUT_S:.0f} s")


def timed_ms(master: Kme, slave: Kme, near: str, far: str) -> tuple[float, float]:
    """Milliseconds of an enc_keys and of the dec_keys that follows it."""
    begin = time.perf_counter()
    key = master.get_key(far)
    given = time.perf_counter()
    same = slave.fetch_key(near, key.id)
    end = time.perf_counter()
    if same.reveal() != key.reveal():
        raise MeasureError("both ends hold different keys")
    return (given - begin) * 1e3, (end - given) * 1e3


def measure(folder: Path, requests: int) -> str:
    lab = network.create(plan(), folder / "lab")
    labs.start(lab)
    try:
        with kme(lab, "sae-a") as a, kme(lab, "sae-b") as b, kme(lab, "sae-e") as e:
            wait_until_filled(a)
            near, far = [], []
            for _ in range(requests):
                near.append(timed_ms(a, b, "sae-a", "sae-b"))
                far.append(timed_ms(a, e, "sae-a", "sae-e"))
                time.sleep(PAUSE_S)
    finally:
        labs.stop(lab)
    lines = [
        f"latency in ms over {requests} requests each, one at a time",
        f"{'':>10}{'1 hop':>16}{'4 hops':>16}{'ratio':>8}",
    ]
    for name, at in (("enc_keys", 0), ("dec_keys", 1)):
        one, four = [pair[at] for pair in near], [pair[at] for pair in far]
        ratio = median(f / n for f, n in zip(four, one, strict=True))
        cells = [f"{median(series):.2f} ({quantiles(series, n=100)[98]:.2f})" for series in (one, four)]
        lines.append(f"{name:>10}{cells[0]:>16}{cells[1]:>16}{ratio:>8.2f}")
    return "\n".join([*lines, "median (99th percentile)"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--requests", type=int, default=1000)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhop-bench-") as temporary:
        print(measure(Path(temporary), options.requests))


if __name__ == "__main__":
    main()
