"""A run without a simulator: figures computed from the case, and workers that die or stumble when they are told to."""

from __future__ import annotations

import hashlib
import os
import signal
import time
from pathlib import Path

from keyhop.comparison.case import Case, Row, Value

DEATHS = "KEYHOP_TEST_DEATHS"
"""Directory: the run with seed 2 at load 0.5 kills its worker, once."""
ALWAYS = "KEYHOP_TEST_ALWAYS_DIES"
STUMBLES = "KEYHOP_TEST_STUMBLES"
PAUSE = "KEYHOP_TEST_PAUSE_S"


def run_case(case: Case) -> Row:
    time.sleep(float(os.environ.get(PAUSE, "0")))
    if case.seed == 2 and case.load == 0.5:
        _die_once(case)
        if STUMBLES in os.environ:
            raise ArithmeticError("a case with seed 2 is too hard")
    return Row(case, trace(case), metrics(case))


def _die_once(case: Case) -> None:
    if ALWAYS in os.environ:
        os.kill(os.getpid(), signal.SIGKILL)
    if DEATHS in os.environ:
        mark = Path(os.environ[DEATHS]) / f"{case.design}-{case.topology}-{case.workload}"
        if not mark.exists():
            mark.touch()
            os.kill(os.getpid(), signal.SIGKILL)


def trace(case: Case) -> str:
    return hashlib.sha256(f"{case.workload} {case.load} {case.topology} {case.seed}".encode()).hexdigest()


def metrics(case: Case) -> dict[str, Value]:
    figure = int.from_bytes(hashlib.sha256(str(case).encode()).digest()[:4]) / 2**32
    return {"supply_success": min(1.0, (1.5 - figure / 4) / max(case.load, 1.0)), "collision_rate": None}
