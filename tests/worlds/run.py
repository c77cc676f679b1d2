"""Runs many schedules: `python -m tests.worlds.run --schedules N [--seed S] [--first K]`."""

from __future__ import annotations

import argparse
import sys
import time
import traceback
from pathlib import Path

from .schedules import Schedule


def run_seed(seed: int, nodes: int | None = None, shape: str | None = None) -> tuple[int, str, str]:
    """(seed, what is wrong or nothing, where)."""
    schedule = Schedule(seed, nodes=nodes, shape=shape)
    try:
        schedule.run()
    except Exception as error:  # whatever a node raises is a failure of the schedule
        return seed, f"{type(error).__name__}: {error}", traceback.format_exc()
    return seed, "", ""


if __name__ == "__main__":
    t=time.time()
    n=0
    first=int(sys.argv[1]); last=int(sys.argv[2])
    from collections import Counter
    c=Counter(); ex={}
    for seed in range(first,last):
        s,w,tb=run_seed(seed)
        if w:
            import re; k=re.sub(r'[0-9]+','N',w)[:90].replace('run N at b with a','run N at a with b')
            c[k]+=1
            ex.setdefault(k,(seed,w,tb))
    print((last-first)/(time.time()-t),"per s")
    for k,v in c.most_common():
        print(v, ex[k][0], ex[k][1]);print("   ", "".join(ex[k][2].splitlines(True)[-7:]))
