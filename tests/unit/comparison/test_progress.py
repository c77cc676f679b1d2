"""Whoever waits for a sweep reads how far it is and what it waits for."""

from __future__ import annotations

from keyhop.comparison.case import Case
from keyhop.comparison.progress import LINE_EVERY_S, LONG_S, Log, Progress, line

SLOW = Case("ait", "W2", 0.8, "nsfnet_14", 1, 100.0)
QUICK = Case("nec", "W2", 0.8, "p2p", 1, 100.0)


def test_a_line_names_the_run_that_takes_longest_and_no_quick_one() -> None:
    state = Progress(3, 10, 1, "it stumbled", ((QUICK, LONG_S), (SLOW, 72.9)))
    assert line(state) == "3 of 10 runs, 1 failed; ait W2 load 0.8 nsfnet_14 seed 1: 1 min 12 s"
    assert line(Progress(3, 10, underway=((QUICK, LONG_S - 0.1),))) == "3 of 10 runs"
    assert line(Progress(10, 10)) == "10 of 10 runs"


def test_a_log_has_a_line_a_minute_however_often_it_is_told() -> None:
    now = [0.0]
    said: list[str] = []
    log = Log(said.append, lambda: now[0])
    for second in range(int(3 * LINE_EVERY_S)):
        now[0] = float(second)
        log(Progress(second, 1000))
    assert said == ["60 of 1000 runs", "120 of 1000 runs"]
