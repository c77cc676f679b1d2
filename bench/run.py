"""All benches in one command, with the method beside each figure: `python -m bench.run` (`--seconds` shortens it).

Figures of supply are ratios to nginx in the same rounds. Nothing here is a bar: what falls short is printed too.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from pathlib import Path

from bench import burnt, hops, relay, supply
from bench import stock as stocks
from bench.measure import MeasureError, build_loadgen


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0, help="about how long all of it may take")
    options = parser.parse_args()
    began = time.monotonic()
    short = options.seconds < 60
    print("core, in-process: relay", flush=True)
    print(relay.measure(2.0 if short else 10.0, 8 if short else 48), flush=True)
    print("\nkey burnt per key delivered, in virtual time", flush=True)
    for rate_kbps in burnt.RATES_KBPS:
        print(burnt.measure(rate_kbps * 1000, 5 if short else 40), flush=True)
    print("\nsupply by real nodes over mutual TLS 1.3, server on one core, load on the other", flush=True)
    with tempfile.TemporaryDirectory(prefix="keyhop-bench-") as temporary:
        folder = Path(temporary)
        try:
            loadgen = build_loadgen(folder)
            for name in supply.NAMES[:1] if short else supply.NAMES:
                rounds = 1 if short else 3
                stock = supply.stock_for(rounds, 2.0)
                print(supply.measure(folder / name, name, loadgen, rounds, 2.0, stock), flush=True)
            if not short:
                print(stocks.measure(folder / "stock", loadgen, stocks.KEYS, 6, 1.0), flush=True)
                print(hops.measure(folder, 1000), flush=True)
        except MeasureError as error:
            print(f"not measured: {error}")
    print(f"\n{time.monotonic() - began:.0f} s in all")


if __name__ == "__main__":
    main()
