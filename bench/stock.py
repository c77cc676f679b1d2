"""What a key costs while little or much is stored: enc_keys per server CPU second, and memory, at 10⁴ to 10⁷ keys.

`python -m bench.stock` fills both directions of a link with that many keys of 32 bytes, then measures as bench.supply
does. While it measures, the link delivers a little more than is taken, so that the stock stays what it was. 10³ keys
are a twentieth of a second of this load: a pool of that size answers 503 now and then, so 10⁴ is the least measured.
All stocks run once per round, in turn; a ratio compares neighbours of one round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from bench.measure import HEADING, Load, build_loadgen, compare, say
from bench.node import FIREHOSE_FILE
from bench.supply import ENC_PATH, make_pair, running
from keyhop.emulator.control import link_directory
from keyhop.emulator.lab import Lab

KEY_BYTES = 32
KEYS = [10**4, 10**5, 10**7]
TRICKLE = {"block_bytes": 1 << 14, "pause_s": 0.003}
"""5.4 MB/s, half of it for either direction: about 85,000 keys of 32 bytes a second; what is too much is dropped."""


@contextlib.contextmanager
def watched(lab: Lab, stock_bytes: int, resident_bytes: list[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    with running(lab, "a", stock_bytes) as (port, group):
        idle = resident(group)
        yield port, group
        resident_bytes.append((idle, resident(group)))


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now, without pages of files."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def measure(folder: Path, loadgen: Path, keys: list[int], rounds: int, seconds: float) -> str:
    folder.mkdir()
    memory: dict[str, list[tuple[int, int]]] = {}
    """Before the load and after it: what the stock itself takes, and what leases and caches take beside it."""
    servers, pki = {}, {}
    for count in keys:
        stock_bytes = count * KEY_BYTES
        name = f"{count:,} keys"
        lab, pki[name] = make_pair(folder / f"lab-{count}", stock_bytes, max(stock_bytes, 16 * 1024))
        told = {"bytes": 2 * stock_bytes, "pause_s": 0.02, "then": TRICKLE}
        (link_directory(lab.directory, "firehose") / FIREHOSE_FILE).write_text(json.dumps(told))
        memory[name] = []
        servers[name] = partial(watched, lab, int(0.8 * stock_bytes), memory[name])
    series = compare(servers, Load(ENC_PATH, "sae-a", seconds=seconds), rounds, loadgen, pki, say)
    lines = []
    for name, one in series.items():
        # The first start fills the store; the later ones open what is there.
        idle, busy = min(idle for idle, _ in memory[name]), max(busy for _, busy in memory[name])
        lines.append(f"{one.line()}  {idle / 2**20:.0f} MiB idle, {busy / 2**20:.0f} after the load")
    return "\n".join(["\nenc_keys by stock, memory of the node", HEADING, *lines])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="*", default=KEYS)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=3.0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhop-bench-") as temporary:
        folder = Path(temporary)
        loadgen = build_loadgen(folder)
        print(measure(folder / "stock", loadgen, options.keys, options.rounds, options.seconds))


if __name__ == "__main__":
    main()
