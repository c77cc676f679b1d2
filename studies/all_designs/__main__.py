"""`python -m studies.all_designs --quick|--full --out DIR` rebuilds the study; given again it goes on."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from keyhop.comparison.executors import ExecutorError
from keyhop.comparison.sweep import SweepError
from studies.all_designs import hypotheses, page, published, sweeps


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m studies.all_designs", description=__doc__)
    extent = parser.add_mutually_exclusive_group(required=True)
    extent.add_argument("--quick", action="store_true", help="a minute: shows that everything works")
    extent.add_argument("--full", action="store_true", help="hours: 600 s, 20 seeds, all loads and workloads")
    parser.add_argument("--out", type=Path, required=True, help="directory; new, or of the same study")
    parser.add_argument("--workers", type=int, default=None, help="as many as cores if not given")
    parser.add_argument("--seeds", type=int, default=0, help="so many in place of the usual ones")
    parser.add_argument("--seconds", type=float, default=0.0, help="simulated, in place of the usual ones")
    options = parser.parse_args(arguments)
    chosen = sweeps.QUICK if options.quick else sweeps.FULL
    if options.seeds:
        chosen = chosen._replace(seeds=tuple(range(1, options.seeds + 1)))
    if options.seconds:
        chosen = chosen._replace(seconds=options.seconds)
    out: Path = options.out
    shown = ""

    def tell(words: str) -> None:
        nonlocal shown
        if sys.stderr.isatty():
            print(f"\r{words:<60}", end="", file=sys.stderr)
        elif words.partition(":")[0] != shown:
            shown = words.partition(":")[0]
            print(f"sweep {shown}", file=sys.stderr)

    try:
        swept = sweeps.run(chosen, out, options.workers, tell)
    except (SweepError, ExecutorError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print(f"\nstopped; what is in {out} is whole: the same command goes on", file=sys.stderr)
        return 130
    verdicts = hypotheses.all_verdicts(swept.figures)
    beside = published.all_results(swept.figures, out)
    index = page.write(out, chosen, swept, verdicts, beside)
    print()
    for verdict in verdicts:
        print(f"{verdict.id}  {verdict.word:<12}{verdict.sentence}")
        for figure in verdict.figures:
            print(f"    {figure}")
    for one in beside:
        print(f"{one.agrees:<12}{one.of}: {one.ours}")
    for failure in swept.failures:
        print(f"failed: {failure}")
    print(f"{swept.runs} runs; page: {index}")
    return 1 if swept.failures else 0


if __name__ == "__main__":
    sys.exit(main())
