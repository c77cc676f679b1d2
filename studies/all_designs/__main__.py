"""`python -m studies.all_designs --quick|--full --out DIR` rebuilds the study; given again it goes on."""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

from keyhop.comparison.executors import ExecutorError
from keyhop.comparison.progress import Log, Progress, line
from keyhop.comparison.sweep import SweepError
from studies.all_designs import hypotheses, page, published, sweeps


class Telling:
    """One line that changes on a terminal; else the name of each sweep, and a line a minute."""

    def __init__(self) -> None:
        self._shown = ""
        self._log = Log(self._say)

    def __call__(self, name: str, state: Progress) -> None:
        if sys.stderr.isatty():
            width = shutil.get_terminal_size().columns - 1
            print(f"\r{f'{name}: {line(state)}'[:width]:<{width}}", end="", file=sys.stderr, flush=True)
            return
        if name != self._shown:
            self._shown = name
            self._say(f"sweep {name}: {line(state)}")
        self._log(state)

    def _say(self, words: str) -> None:
        print(words, file=sys.stderr, flush=True)


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m studies.all_designs", description=__doc__)
    extent = parser.add_mutually_exclusive_group(required=True)
    extent.add_argument("--quick", action="store_true", help="a minute: shows that everything works")
    extent.add_argument("--full", action="store_true", help="hours: 600 s, 20 seeds, all loads and workloads")
    parser.add_argument("--out", type=Path, required=True, help="directory; new, or of the same study")
    parser.add_argument("--workers", type=int, default=None, help="as many as cores if not given")
    parser.add_argument("--seeds", type=int, default=0, help="so many in place of the usual ones: seeds 1 to N")
    parser.add_argument("--seconds", type=float, default=0.0, help="simulated, in place of the usual ones")
    options = parser.parse_args(arguments)
    chosen = sweeps.QUICK if options.quick else sweeps.FULL
    if options.seeds:
        chosen = chosen._replace(seeds=tuple(range(1, options.seeds + 1)))
    if options.seconds:
        chosen = chosen._replace(seconds=options.seconds)
    out: Path = options.out
    try:
        swept = sweeps.run(chosen, out, options.workers, Telling())
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
