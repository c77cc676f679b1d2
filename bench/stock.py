"""What a key costs while little or much is stored: enc_keys per server CPU second, and memory, at 10⁴ to 10⁷ keys.

`python -m bench.stock` fills both directions of a link with that many keys of 32 bytes, then measures as bench.supply
does. While it measures, the link delivers a little more than is taken, so that the stock stays what it was. 10³ keys
are a twentieth of a second of this load: a pool of that size answers 503 now and then, so 10⁴ is the least measured.
All pairs of nodes stay up and are measured in turn, in short slices, the others halted meanwhile: a ratio compares
slices that are a second apart, and the middle one of many is known to a few per cent where the machine is not.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from bench.measure import Load, MeasureError, Pki, Result, build_loadgen, run_load, say
from bench.node import FIREHOSE_FILE
from bench.supply import ENC_PATH, both, make_pair, port_of, wait_until_filled
from keyhop.comparison.statistics import estimate
from keyhop.emulator.control import link_directory

KEY_BYTES = 32
KEYS = [10**4, 10**5, 10**7]
TRICKLE = {"block_bytes": 1 << 14, "pause_s": 0.003}
"""5.4 MB/s, half of it for either direction: about 85,000 keys of 32 bytes a second; what is too much is dropped."""
SLICES = 24


@dataclass(frozen=True)
class Filled:
    """A pair of nodes with a stock."""

    keys: int
    port: int
    pki: Pki
    groups: tuple[int, int]
    idle_bytes: int
    results: list[Result]

    def signal(self, number: signal.Signals) -> None:
        for group in self.groups:
            os.killpg(group, number)


def resident(pid: int) -> int:
    """Bytes of memory that a process holds now, without pages of files."""
    fields = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return int(fields["RssAnon"].split()[0]) * 1024


def filled(folder: Path, keys: int, stack: contextlib.ExitStack) -> Filled:
    """Up, with its stock, after a new start: what filling it took is no part of its memory."""
    stock_bytes = keys * KEY_BYTES
    lab, pki = make_pair(folder / f"lab-{keys}", stock_bytes, max(stock_bytes, 16 * 1024))
    told = {"bytes": 2 * stock_bytes, "pause_s": 0.02, "then": TRICKLE}
    (link_directory(lab.directory, "firehose") / FIREHOSE_FILE).write_text(json.dumps(told))
    enough = int(0.8 * stock_bytes)
    with both(lab, "a"):
        wait_until_filled(lab, enough)
    groups = stack.enter_context(both(lab, "a"))
    wait_until_filled(lab, enough)
    pair = Filled(keys, port_of(lab, "a"), pki, groups, resident(groups[0]), [])
    # Ended by its context, which a halted process would not hear of.
    stack.callback(pair.signal, signal.SIGCONT)
    say(f"{keys:,} keys are stored")
    return pair


def measure(folder: Path, loadgen: Path, keys: list[int], slices: int, seconds: float) -> str:
    folder.mkdir()
    load = Load(ENC_PATH, "sae-a", seconds=seconds, warmup_s=0.3)
    with contextlib.ExitStack() as stack:
        # None is halted before all are filled: ends that hear nothing of each other for 15 s open their link anew.
        pairs = [filled(folder, count, stack) for count in keys]
        for pair in pairs:
            run_load(loadgen, load, pair.port, pair.groups[0], pair.pki)
            pair.signal(signal.SIGSTOP)
        for turn in range(slices):
            # Every other time the other way round, so that no pair always follows the same one.
            for pair in pairs if turn % 2 else reversed(pairs):
                pair.signal(signal.SIGCONT)
                result = run_load(loadgen, load, pair.port, pair.groups[0], pair.pki)
                pair.signal(signal.SIGSTOP)
                if result.errors or result.non_200:
                    raise MeasureError(
                        f"{pair.keys:,} keys: {result.errors} errors, {result.non_200} answers other than 200"
                    )
                pair.results.append(result)
            say(f"slice {turn + 1}/{slices}: " + ", ".join(f"{pair.results[-1].per_cpu_s:,.0f}" for pair in pairs))
        lines = ["\nenc_keys by stock, memory of the node; ratios: median, and its interval of 95 %"]
        lines += [line(pair, pairs[0]) for pair in pairs]
    return "\n".join(lines)


def line(pair: Filled, first: Filled) -> str:
    ratios = [a.per_cpu_s / b.per_cpu_s for a, b in zip(pair.results, first.results, strict=True)]
    found = estimate(ratios)
    assert found is not None
    between = f"{found.low:.3f} to {found.high:.3f}" if found.low is not None else "one slice"
    return (
        f"{pair.keys:>12,} keys {median(r.per_cpu_s for r in pair.results):>9,.0f} req/CPU-s  "
        f"{found.median:.3f} ({between}) of {first.keys:,}   "
        f"{pair.idle_bytes / 2**20:.0f} MiB idle, {resident(pair.groups[0]) / 2**20:.0f} after the load"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, nargs="*", default=KEYS)
    parser.add_argument("--slices", type=int, default=SLICES, help="of each pair of nodes")
    parser.add_argument("--seconds", type=float, default=1.0, help="of a slice")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="keyhop-bench-") as temporary:
        folder = Path(temporary)
        loadgen = build_loadgen(folder)
        print(measure(folder / "stock", loadgen, options.keys, options.slices, options.seconds))


if __name__ == "__main__":
    main()
