"""Files that are not for us, a full disk, a damaged lab: a sentence and an exit code, never a traceback."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from pkgutil import walk_packages

import pytest
from pretend import Run

import keyhop
from keyhop.cli.output import ExitCode
from keyhop.emulator import devices, network
from keyhop.emulator import lab as labs
from keyhop.emulator.processes import Process
from keyhop.simulator import topology

NOBODY = 65_534
MAIN = "from keyhop.cli.main import main; main()"


@pytest.fixture
def private(run: Run, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A lab and a file in the working directory that are not for whoever runs the commands."""
    # Not below pytest's own directory, which is itself for its owner alone.
    place = Path(tempfile.mkdtemp())
    place.chmod(0o755)
    lab = place / "keyhop-lab"
    network.create(devices.plan(topology.load_builtin("line3")), lab)
    (place / "net.yml").write_bytes(b"x")
    (place / "net.yml").chmod(0)
    monkeypatch.chdir(place)
    # Python itself may lie where nobody else may look: what is imported only when it is wanted comes now.
    lazily = ("concurrent.futures.thread", "encodings.idna")
    for module in (*(found.name for found in walk_packages(keyhop.__path__, "keyhop.")), *lazily):
        import_module(module)
    before = os.geteuid()
    if before == 0:
        os.seteuid(NOBODY)
        if not os.access(keyhop.__file__, os.R_OK, effective_ids=True):
            os.seteuid(before)
            shutil.rmtree(place)
            pytest.skip(f"{keyhop.__file__} is not for other users: as one of them this product cannot run at all")
    else:
        lab.chmod(0)
        place.chmod(0o555)
    try:
        yield place
    finally:
        if before == 0:
            os.seteuid(before)
        place.chmod(0o755)
        lab.chmod(0o700)
        shutil.rmtree(place)


@pytest.mark.parametrize(
    ("command", "code", "sentence"),
    [
        ("status", ExitCode.UNREACHABLE, "the node does not answer"),
        ("link list", ExitCode.UNREACHABLE, "the node does not answer"),
        ("status --lab keyhop-lab", ExitCode.FAILED, "lab.json cannot be read (Permission denied)"),
        ("ping sae-bob --from sae-alice --lab keyhop-lab", ExitCode.FAILED, "lab.json cannot be read"),
        ("lab inspect", ExitCode.NO_SUCH_THING, "no lab here"),
        ("lab inspect --lab keyhop-lab", ExitCode.FAILED, "lab.json cannot be read (Permission denied)"),
        ("lab down --lab keyhop-lab", ExitCode.FAILED, "lab.json cannot be read (Permission denied)"),
        ("lab up line3", ExitCode.FAILED, "keyhop-lab/lab.json cannot be used (Permission denied)"),
        ("demo line3", ExitCode.FAILED, "keyhop-demo cannot be used (Permission denied)"),
        ("demo line3 --once --dir there", ExitCode.FAILED, "there cannot be used (Permission denied)"),
        ("pki init", ExitCode.FAILED, "pki: cannot be written (Permission denied)"),
        ("pki show keyhop-lab/pki/kme-ca.crt", ExitCode.FAILED, "cannot be read (Permission denied)"),
        ("link key a b", ExitCode.FAILED, "a-b.key: cannot be written (Permission denied)"),
        ("config validate net.yml", ExitCode.FAILED, "net.yml cannot be read (Permission denied)"),
        ("lab up net.yml --dir there", ExitCode.FAILED, "net.yml cannot be read (Permission denied)"),
        ("serve --config net.yml", ExitCode.FAILED, "net.yml cannot be read (Permission denied)"),
        (
            "key get b --address 127.0.0.1:1 --cert net.yml --key net.yml --ca net.yml",
            ExitCode.USAGE,
            "net.yml cannot be used as PEM files (Permission denied)",
        ),
    ],
)
def test_what_is_not_for_us_is_a_sentence(
    private: Path, run: Run, monkeypatch: pytest.MonkeyPatch, command: str, code: ExitCode, sentence: str
) -> None:
    monkeypatch.chdir(private)
    result = run(*command.split())
    assert sentence in result.stderr, result.stderr
    assert result.exit_code == code
    assert result.exception is None or isinstance(result.exception, SystemExit)


def test_an_answer_that_cannot_be_written_is_told_once() -> None:
    with open("/dev/full", "w") as full:
        ended = subprocess.run(
            [sys.executable, "-c", MAIN, "version"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            timeout=30,
            check=False,
        )
    assert ended.stderr == (
        "error: the operating system refused (No space left on device)\n"
        "  check the disk, and where the answer goes  [exit 1]\n"
    )
    assert ended.returncode == 1


def test_a_reader_that_had_enough_is_no_error() -> None:
    with subprocess.Popen(
        [sys.executable, "-c", MAIN, "config", "schema", "node"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as command:
        assert command.stdout is not None and command.stderr is not None
        command.stdout.close()
        assert command.stderr.read() == ""


def test_a_demo_over_a_damaged_one_says_what_to_remove(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keyhop-demo").mkdir()
    (tmp_path / "keyhop-demo" / labs.LAB_FILE).write_text("junk")
    result = run("demo", "line3")
    assert result.exit_code == ExitCode.FAILED
    first, second = result.stderr.splitlines()
    assert "keyhop-demo/lab.json is damaged" in first
    assert second.startswith(f"  remove {tmp_path / 'keyhop-demo'} and make the lab anew")


def test_a_directory_in_use_is_told_with_its_remedy_once(run: Run, tmp_path: Path) -> None:
    (tmp_path / "keyhop-demo").mkdir()
    (tmp_path / "keyhop-demo" / "thesis.txt").touch()
    result = run("demo", "line3")
    assert result.exit_code == ExitCode.FAILED and result.stderr.count("--dir") == 1


def test_a_lab_that_is_a_file_is_told(run: Run, tmp_path: Path) -> None:
    (tmp_path / "here").touch()
    for command in ("status", "lab inspect", "link list"):
        result = run(*command.split(), "--lab", "here")
        assert result.exit_code == ExitCode.NO_SUCH_THING
        assert "here is no directory" in result.stderr


def test_of_a_lab_and_a_demo_side_by_side_the_one_that_runs_is_meant(tmp_path: Path) -> None:
    plan = devices.plan(topology.load_builtin("line3"))
    lab, demo = (network.create(plan, tmp_path / name) for name in labs.LAB_DIRECTORIES)
    assert labs.find_lab(tmp_path) == lab.directory
    stat = Path("/proc/self/stat").read_text()
    birth_ticks = int(stat[stat.rindex(")") + 2 :].split()[19])
    labs._record(demo, "alice", Process(pid=os.getpid(), birth_ticks=birth_ticks))
    assert labs.find_lab(tmp_path) == demo.directory
    assert labs.find_lab(lab.directory) == lab.directory, "whoever went there means it"
