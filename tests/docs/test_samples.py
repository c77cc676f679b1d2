"""The samples of the documents run: the two nodes of the tutorial, typed as it says, and the Python of other pages."""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keyhop.emulator.network import free_ports

from .documents import DOCS, ROOT, Sample, documents, samples

TUTORIAL = DOCS / "tutorial.md"
HAND_MADE = "## 3. Two nodes by hand"
TIMEOUT_S = 90
PORTS = ("8501", "8502", "8601", "8602", "8701", "8702")
CURL = """\
import argparse, ssl, urllib.error, urllib.request
parser = argparse.ArgumentParser()
parser.add_argument("-s", action="store_true")
for name in ("--cacert", "--cert", "--key", "url"):
    parser.add_argument(name)
asked = parser.parse_args()
context = ssl.create_default_context(cafile=asked.cacert) if asked.cacert else None
if asked.cert:
    context.load_cert_chain(asked.cert, asked.key)
try:
    print(urllib.request.urlopen(asked.url, context=context).read().decode(), end="")
except urllib.error.HTTPError as error:
    print(error.read().decode(), end="")
"""
"""What the tutorial needs of curl, for machines that have none."""
NODE_ENDS = "kill $NORTH $SOUTH"
OTHERS = [s for page in documents() if page != TUTORIAL for s in samples(page) if s.mark is not None]


def with_ports(text: str, ports: dict[str, str]) -> str:
    """The text for a machine on which the ports of the tutorial may be taken."""
    moves = ";".join(f"s/:{ports[f'8{digit}01']}/:{ports[f'8{digit}02']}/" for digit in "567")
    text = text.replace(r"s/:8\([567]\)01/:8\102/", moves)
    return re.sub("|".join(PORTS), lambda found: ports[found[0]], text)


@pytest.fixture(scope="module")
def typed(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str, dict[str, str]]:
    """Types the tutorial's third part, and runs the samples of other pages before its nodes end."""
    folder = tmp_path_factory.mktemp("tutorial")
    ports = dict(zip(PORTS, map(str, free_ports(len(PORTS))), strict=True))
    part = [s for s in samples(TUTORIAL) if s.text in TUTORIAL.read_text(encoding="utf-8").split(HAND_MADE)[1]]
    for sample in part:
        if sample.mark:
            (folder / sample.mark).write_text(with_ports(sample.text, ports), encoding="utf-8")
    curl = "" if shutil.which("curl") else 'curl() { python curl.py "$@"; }\n'
    (folder / "curl.py").write_text(CURL, encoding="utf-8")
    script = f"set -eu\n{curl}" + "".join(sample.text for sample in part if sample.language == "sh")
    assert script.count(NODE_ENDS) == 1
    for index, sample in enumerate(OTHERS):
        (folder / f"other{index}.py").write_text(with_ports(sample.text, ports), encoding="utf-8")
    others = "".join(f"python other{index}.py && echo other {index} ran\n" for index in range(len(OTHERS)))
    script = with_ports(script.replace(NODE_ENDS, f"{others}{NODE_ENDS}\nwait"), ports)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("KEYHOP")}
    environment["PATH"] = f"{Path(sys.executable).parent}{os.pathsep}{environment['PATH']}"
    # A session of its own, so that nodes of a script that broke off can be ended with it.
    running = subprocess.Popen(
        ["bash", "-c", script],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )
    try:
        said, _ = running.communicate(timeout=TIMEOUT_S)
    finally:
        if running.poll() != 0:
            os.killpg(running.pid, signal.SIGKILL)
    assert running.returncode == 0, f"the tutorial broke off:\n{said[-2000:]}"
    return folder, said, ports


def test_the_tutorial_does_what_it_says(typed: tuple[Path, str, dict[str, str]]) -> None:
    _, said, _ = typed
    assert re.search(r"^north-south +up ", said, re.MULTILINE), "the link came up"
    keys = re.findall(r'^\{"keys":\[\{"key_ID":"([^"]+)","key":"([^"]+)"\}\]\}$', said, re.MULTILINE)
    assert len(keys) == 2 and keys[0] == keys[1], "the same key at both sides"
    assert said.count('{"message":"one or more keys specified are not found on KME"}') == 1, "and only once"
    assert "\n256 True\n" in said, "talk.py"
    assert re.search(r'keyhop_keys_delivered_total\{interface="etsi014",role="enc"\} 3', said)


def test_the_first_contact_secret_is_overwritten_as_the_tutorial_says(typed: tuple[Path, str, dict[str, str]]) -> None:
    folder, _, _ = typed
    for node in ("north", "south"):
        assert (folder / node / "contact.key").stat().st_size < 100


def test_the_audit_log_of_the_tutorial_holds_ids_and_no_key(typed: tuple[Path, str, dict[str, str]]) -> None:
    folder, said, _ = typed
    key_id, key = re.findall(r'"key_ID":"([^"]+)","key":"([^"]+)"', said)[0]
    for node in ("north", "south"):
        log = (folder / node / "audit.jsonl").read_text()
        assert key_id in log and key not in log


@pytest.mark.parametrize("index", range(len(OTHERS)), ids=[f"{s.page.relative_to(ROOT)}" for s in OTHERS])
def test_a_sample_runs(typed: tuple[Path, str, dict[str, str]], index: int) -> None:
    _, said, _ = typed
    assert f"other {index} ran" in said


def test_every_shown_answer_of_the_tutorial_looks_like_what_came(typed: tuple[Path, str, dict[str, str]]) -> None:
    _, said, ports = typed
    shown: list[Sample] = [s for s in samples(TUTORIAL) if s.language == "text"]
    came = {" ".join(shape(line).split()) for line in said.splitlines()}
    for sample in shown:
        for line in with_ports(sample.text, ports).splitlines():
            # The first words: what figures follow is up to the machine and the moment.
            start = " ".join(shape(line.removesuffix("...")).split()[:2])
            assert not start or any(one.startswith(start) for one in came), f"nothing like this came: {line}"


def shape(line: str) -> str:
    """A line without what differs from run to run: keys, IDs, fingerprints, numbers."""
    line = re.sub(r'("key_?I?D?":)"[^"]*"', r"\1", line)
    line = re.sub(r"[0-9a-f]{8}-[0-9a-f-]{27}|[0-9a-f]{32,}", "ID", line)
    return re.sub(r"\s+", " ", re.sub(r"[-+]?\d[\d.:TZ-]*( ?[kM]?[bB](/s)?)?", "N", line)).strip()
