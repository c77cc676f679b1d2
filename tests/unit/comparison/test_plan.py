"""A comparison is asked for in words that exist; what is wrong is refused with what would be right."""

from __future__ import annotations

from pathlib import Path

import pytest

from keyhop.comparison.plan import RUNS_LIMIT, Plan, arguments
from keyhop.core.designs import DESIGNS
from keyhop.files import CheckError, FileError, parse
from keyhop.simulator.workloads import WORKLOADS


def test_a_plan_without_words_can_be_run() -> None:
    grid = Plan().grid()
    assert grid.designs == tuple(DESIGNS) and grid.topologies == ("p2p",)
    assert 0 < len(grid) <= 1000


def test_names_may_be_short_or_long_and_mean_the_same() -> None:
    plan = Plan(workloads=("mixed_size", "w3"), topologies=("tokyo2010", "nsfnet"), seeds=("3", "7..9"))
    grid = plan.grid()
    assert grid.workloads == ("W2", "W3")
    assert grid.topologies == ("tokyo_2010", "nsfnet_14")
    assert grid.seeds == (3, 7, 8, 9)
    assert Plan(workloads=("all",)).grid().workloads == tuple(WORKLOADS)


@pytest.mark.parametrize(
    ("given", "what", "legal", "at"),
    [
        ({"designs": ("cisko",)}, "no design is called cisko", "did you mean cisco?", ("designs", 0)),
        ({"designs": ("nec", "all")}, "no design is called all", "", ("designs", 1)),
        ({"designs": ("nec", "nec")}, "nec stands there twice", "each once", ("designs", 1)),
        ({"designs": ()}, "the list is empty", "name at least one", ("designs",)),
        ({"workloads": ("W9",)}, "no workload is called W9", "", ("workloads", 0)),
        (
            {"workloads": ("mixed_sise",)},
            "no workload is called mixed_sise",
            "did you mean mixed_size?",
            ("workloads", 0),
        ),
        ({"workloads": ("W2", "mixed_size")}, "mixed_size stands there twice", "", ("workloads", 1)),
        ({"loads": (0.0,)}, "load 0 is out of range", "must be more than 0", ("loads", 0)),
        ({"loads": (0.5, float("nan"))}, "load nan is out of range", "", ("loads", 1)),
        ({"topologies": ("line4",)}, "no built-in network is called line4", "did you mean line", ("topologies", 0)),
        ({"seeds": ("20..1",)}, "20..1 is no seed", "from the lower to the higher", ("seeds", 0)),
        ({"seeds": ("1..5", "5")}, "seed 5 stands there twice", "", ("seeds", 1)),
        ({"seeds": ("-1",)}, "-1 is no seed", "such as 7 or 1..20", ("seeds", 0)),
        ({"seeds": ("0..99999999999",)}, "is no seed", "at most 100000", ("seeds", 0)),
        ({"seeds": ("1..90000",)}, " runs", f"at most {RUNS_LIMIT}", ()),
    ],
)
def test_what_does_not_exist_is_refused_with_what_does(
    given: dict[str, object], what: str, legal: str, at: tuple[str | int, ...]
) -> None:
    with pytest.raises(CheckError) as refused:
        Plan(**given)  # type: ignore[arg-type]
    assert what in refused.value.what and legal in refused.value.legal
    assert refused.value.at == at


def test_a_file_has_the_same_words_as_the_options(tmp_path: Path) -> None:
    text = "designs: [nec, ait]\nworkloads: W3\nloads: [0.5, 1]\nseeds: 1..3\nseconds: 60\nout: study\nworkers: 4\n"
    plan = parse(Plan, text, "study.yml", tmp_path)
    assert plan == Plan(
        designs=("nec", "ait"),
        workloads=("W3",),
        loads=(0.5, 1.0),
        seeds=("1..3",),
        seconds=60.0,
        out=tmp_path / "study",
        workers=4,
    )


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("desings: [nec]\n", "study.yml:1: desings: unknown key: did you mean designs?"),
        (
            "seeds: 1..3\ndesigns: [nec, cisko]\n",
            "study.yml:2: designs[1]: no design is called cisko: did you mean cisco?",
        ),
        ("workloads:\n  - W2\n  - W0\n", "study.yml:3: workloads[1]: no workload is called W0"),
        ("loads: [half]\n", "study.yml:1: loads[0]: 'half' stands here: write a number"),
        ("seconds: 0\n", "study.yml:1: seconds: '0' is out of range"),
        ("executor: ray\n", "study.yml:1: executor: 'ray' is not known"),
        ("workers: 0\n", "study.yml:1: workers: '0' is out of range"),
    ],
)
def test_a_file_is_refused_with_line_and_nearest_word(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(FileError) as refused:
        parse(Plan, text, "study.yml", tmp_path)
    assert str(refused.value).startswith(problem)


def test_the_options_of_a_plan_make_the_same_plan() -> None:
    plan = Plan(designs=("nec",), loads=(0.25, 1.0), seeds=("1..20",), seconds=30.0, out=Path("my study"))
    words = arguments(plan)
    assert words == [
        "--designs",
        "nec",
        "--loads",
        "0.25,1",
        "--seeds",
        "1..20",
        "--seconds",
        "30",
        "--out",
        "my study",
    ]
    assert arguments(Plan()) == []
