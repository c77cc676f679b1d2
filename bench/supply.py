"""What a real node supplies: enc_keys, dec_keys and new connections per server CPU second, beside nginx.

`python -m bench.supply` makes two nodes with a link that is filled first, SQLite stores, audit, quotas and metrics on.
The node that is measured runs on core 0, the load and the other node on core 1; nginx gives a static answer of the
same length over the same mutual TLS 1.3 in the same round. A ratio compares neighbours of one round. `half_load` sends
half of the requests that each server has just been seen to answer, at random moments, and compares how long they take.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median

import orjson

from bench.measure import (
    CLIENT_CORE,
    HEADING,
    SERVER_CORE,
    Certificate,
    Load,
    MeasureError,
    Pki,
    Result,
    ServerStart,
    build_loadgen,
    compare,
    nginx,
    pinned,
    run_load,
    say,
)
from bench.node import FIREHOSE_FILE
from keyhop.client.core import Unreachable
from keyhop.client.sync import Kme
from keyhop.daemon.pki import Role, authority_certificate, leaf
from keyhop.emulator import network
from keyhop.emulator.control import link_directory
from keyhop.emulator.lab import Lab
from keyhop.emulator.network import Plan, PlannedLink, PlannedNode
from keyhop.wire.etsi014 import Operation, build_path, encode_container, encode_key_ids

ENC_PATH = build_path("sae-b", Operation.ENC_KEYS)
DEC_PATH = build_path("sae-a", Operation.DEC_KEYS)
STATIC_BODY = encode_container([("8d4f2b1a-6c3e-4f57-9b20-1e7a5c9d3f60", bytes(range(32)))])
FILL_TIMEOUT_S = 300.0
NAMES = ("enc_keys", "new_connection", "dec_keys", "half_load")
KEYS_PER_S = 70_000
"""More than any node has been seen to give, for the size of the stock."""
BURNT_BY_A_RESTART_BYTES = 12 << 20
"""Leases in hand, of 8 MiB at most; each round starts its nodes anew."""


def make_pair(folder: Path, stock_bytes: int, most_bytes: int | None = None) -> tuple[Lab, Pki]:
    """Two nodes whose link fills each direction with about `stock_bytes`; more than `most_bytes` is not kept."""
    plan = Plan(
        name="bench",
        nodes=(PlannedNode(id="a", applications=("sae-a",)), PlannedNode(id="b", applications=("sae-b",))),
        links=(PlannedLink(id="firehose", ends=("a", "b"), block_bytes=1 << 20, block_period_s=0.01, qber_ratio=0.02),),
        stock_bytes=4 * stock_bytes + (64 << 20) if most_bytes is None else most_bytes,
    )
    lab = network.create(plan, folder)
    # A busy machine drops blocks that come faster than they are taken in: a quarter may go.
    told = {"bytes": 5 * stock_bytes // 2 + (16 << 20), "pause_s": 0.03}
    (link_directory(folder, "firehose") / FIREHOSE_FILE).write_text(json.dumps(told))
    issued = {
        name: leaf(lab.pki_directory, role, owner)
        for name, role, owner in (("server", Role.KME, "a"), ("a", Role.SAE, "sae-a"), ("b", Role.SAE, "sae-b"))
    }
    server = Certificate(issued["server"].certificate, issued["server"].key)
    clients = {f"sae-{n}": Certificate(issued[n].certificate, issued[n].key) for n in ("a", "b")}
    # nginx trusts the applications' authority, the load generator that of the key managers: one bundle for both.
    bundle = folder / "bundle.crt"
    bundle.write_bytes(
        b"".join(authority_certificate(lab.pki_directory, role).read_bytes() for role in (Role.SAE, Role.KME))
    )
    return lab, Pki(bundle, server, clients)


def stock_for(rounds: int, seconds: float) -> int:
    """Bytes per direction that last for so many rounds, whichever of the benches it is."""
    keys = KEYS_PER_S * (2 * seconds + 1)
    return rounds * (int(keys) * 32 + 2 * BURNT_BY_A_RESTART_BYTES)


def port_of(lab: Lab, node: str) -> int:
    return int(lab.node(node).etsi014.rpartition(":")[2])


@contextlib.contextmanager
def both(lab: Lab, measured: str) -> Iterator[tuple[int, int]]:
    """Both nodes, listening; gives the process groups of the measured one and of the other."""
    other = "b" if measured == "a" else "a"
    environment = {"PYTHONPATH": os.getcwd()}

    def command(node: str) -> list[str]:
        return [sys.executable, "-m", "bench.node", str(lab.config(node))]

    with (
        pinned(command(other), core=CLIENT_CORE, port=port_of(lab, other), environment=environment) as beside,
        pinned(command(measured), core=SERVER_CORE, port=port_of(lab, measured), environment=environment) as process,
    ):
        yield process.pid, beside.pid


@contextlib.contextmanager
def running(lab: Lab, measured: str, stock_bytes: int) -> Iterator[tuple[int, int]]:
    """Both nodes; gives (014 port, process group) of the measured one, once its link is filled."""
    with both(lab, measured) as (group, _):
        wait_until_filled(lab, stock_bytes)
        yield port_of(lab, measured), group


def wait_until_filled(lab: Lab, stock_bytes: int) -> None:
    issued, authority = lab.credentials("sae-a")
    deadline = time.monotonic() + FILL_TIMEOUT_S
    with Kme(f"https://{lab.node('a').etsi014}", cert=issued.certificate, key=issued.key, ca=authority) as kme:
        while time.monotonic() < deadline:
            with contextlib.suppress(Unreachable):
                if kme.status("sae-b").stored_keys * 32 >= stock_bytes:
                    return
            time.sleep(0.2)
    raise MeasureError(f"the link did not fill to {stock_bytes} bytes within {FILL_TIMEOUT_S:.0f} s")


def fetch_ids(folder: Path, lab: Lab, pki: Pki, loadgen: Path, seconds: float, stock_bytes: int) -> Path:
    """Asks for keys at `a` and writes the dec_keys bodies for them, a line each."""
    answers, bodies = folder / "answers", folder / "dec_bodies"
    with running(lab, "a", stock_bytes) as (port, group):
        load = Load(ENC_PATH, "sae-a", seconds=seconds, warmup_s=0.1, answers=answers)
        run_load(loadgen, load, port, group, pki)
    with answers.open("rb") as source, bodies.open("wb") as target:
        for line in source:
            keys = orjson.loads(line)["keys"]
            target.write(encode_key_ids([key["key_ID"] for key in keys]) + b"\n")
    return bodies


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    parser.add_argument("--stock-mib", type=int, help="filled into each direction before measuring; else what it takes")
    parser.add_argument("--only", nargs="*", choices=NAMES)
    options = parser.parse_args()
    stock = options.stock_mib << 20 if options.stock_mib else stock_for(options.rounds, options.seconds)
    with tempfile.TemporaryDirectory(prefix="keyhop-bench-") as temporary:
        folder = Path(temporary)
        loadgen = build_loadgen(folder)
        for name in options.only or NAMES:
            ratio = measure(folder / name, name, loadgen, options.rounds, options.seconds, stock)
            print(ratio, flush=True)


def measure(folder: Path, name: str, loadgen: Path, rounds: int, seconds: float, stock: int) -> str:
    folder.mkdir()
    lab, pki = make_pair(folder / "lab", stock)
    static = Load(ENC_PATH, "sae-a", seconds=seconds)
    servers = {"nginx": partial(nginx, folder / "nginx", pki, STATIC_BODY)}
    loads = {"nginx": static}
    if name == "dec_keys":
        with running(lab, "a", stock):
            pass
        series = None
        for _ in range(rounds):
            bodies = fetch_ids(folder, lab, pki, loadgen, 1.5 * seconds, 1 << 20)
            loads[name] = Load(DEC_PATH, "sae-b", seconds=seconds, bodies=bodies)
            servers[name] = partial(running, lab, "b", 1 << 20)
            found = compare(servers, loads, 1, loadgen, pki, say)
            if series is None:
                series = found
            else:
                for key, one in found.items():
                    series[key].results += one.results
                    series[key].ratios += one.ratios
        assert series is not None
    else:
        servers[name] = partial(running, lab, "a", 1 << 20)
        loads[name] = static
        if name == "new_connection":
            loads = dict.fromkeys(servers, Load(ENC_PATH, "sae-a", 16, seconds, new_connections=True))
        with running(lab, "a", stock):
            pass
        if name == "half_load":
            return half_load(servers, static, rounds, loadgen, pki)
        series = compare(servers, loads, rounds, loadgen, pki, say)
    return "\n".join([f"\n{name}", HEADING, *(one.line() for one in series.values())])


def half_load(servers: Mapping[str, ServerStart], load: Load, rounds: int, loadgen: Path, pki: Pki) -> str:
    """How long a request takes while half of what a server can do is asked of it, against the first server."""
    found: dict[str, list[Result]] = {name: [] for name in servers}
    for _ in range(rounds):
        for name, start in servers.items():
            with start() as (port, group):
                most = run_load(loadgen, replace(load, seconds=load.seconds / 2), port, group, pki).per_wall_s
                result = run_load(loadgen, replace(load, rate=most / 2), port, group, pki)
            if result.errors or result.non_200:
                raise MeasureError(f"{name}: {result.errors} errors, {result.non_200} answers other than 200")
            found[name].append(result)
            say(f"{name}: {result.per_wall_s:,.0f} requests/s, p99 {result.p99_us:.0f} us")
    first = found[next(iter(servers))]
    lines = [
        "\nenc_keys at half of saturation",
        f"{'server':<20}{'req/s':>10}{'p50 us':>8}{'p99 us':>8}  p99 to the first",
    ]
    for name, results in found.items():
        ratios = [one.p99_us / other.p99_us for one, other in zip(results, first, strict=True)]
        lines.append(
            f"{name:<20}{median(r.per_wall_s for r in results):>10,.0f}{median(r.p50_us for r in results):>8.0f}"
            f"{median(r.p99_us for r in results):>8.0f}  {median(ratios):.1f}  ({min(ratios):.1f}-{max(ratios):.1f})"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    main()
