"""Conversations written out: a command, `----`, then all that was said and saved; the texts lie beside this file."""

from __future__ import annotations

import difflib
import os
from pathlib import Path

import pytest
from conversation import Conversation, Misread

TEXTS = sorted(Path(__file__).parent.glob("*.txt"))
REWRITE = "KEYHOP_REWRITE"
"""Set to 1: the texts are written anew from what happens. Read the difference before you keep it."""
LINE = "----"


def play(text: str) -> str:
    """The text with what happens now in place of what it says; all else stands as it stood."""
    conversation = Conversation()
    written: list[str] = []
    lines = iter(text.splitlines())
    for line in lines:
        written.append(line)
        if not line or line.startswith("#"):
            continue
        if next(lines, None) != LINE:
            raise Misread(f"after the command {line!r} stands {LINE!r}")
        written += [LINE, conversation.run(line), ""]
        for _ in iter(lambda: next(lines, ""), ""):
            pass
    if conversation.faults:
        raise Misread(f"{conversation.faults} never came about")
    played = "\n".join(written).rstrip("\n") + "\n"
    for name, key in conversation.keys.items():
        assert key.bits.hex() not in played, f"the bits of {name} stand in the text"
    return played


def check(path: Path) -> None:
    text = path.read_text()
    played = play(text)
    if os.environ.get(REWRITE) == "1":
        path.write_text(played)
    elif played != text:
        difference = difflib.unified_diff(text.splitlines(), played.splitlines(), "written", "said now", lineterm="")
        pytest.fail("\n".join([f"{path.name} ({REWRITE}=1 writes it anew)", *difference]), pytrace=False)


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)
def test_the_conversation_goes_as_it_is_written(path: Path) -> None:
    check(path)


SMALL = """\
# One end has a block that the other has not.

network a-b a1>b1
----
ok

block a-b 0 4096
----
ok
"""


def test_a_text_that_differs_fails_with_the_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(REWRITE, raising=False)
    text = tmp_path / "small.txt"
    text.write_text(SMALL)
    check(text)
    text.write_text(SMALL.replace("4096\n----\nok", "4096\n----\n0.001 a gives a1 K1: 0+32 of key a>b"))
    with pytest.raises(pytest.fail.Exception, match=r"-0[.]001 a gives a1 K1: 0[+]32 of key a>b\n[+]ok"):
        check(text)


def test_a_text_is_written_anew_on_request_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = tmp_path / "small.txt"
    text.write_text(SMALL.replace("----\nok", "----"))
    monkeypatch.setenv(REWRITE, "1")
    check(text)
    assert text.read_text() == SMALL


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("netwrok a-b\n----\n", "'netwrok' is no command"),
        ("run 5s\n----\n", "begins with `network`"),
        ("network a-b\n", "after the command 'network a-b' stands '----'"),
        ("network a-b\n----\n\nrun 5\n----\n", "'5' is no time"),
        ("network a-b lifetime=5s\n----\n", "no settings lifetime"),
        ("network a-b\n----\n\nfetch b1 K1\n----\n", "no key K1"),
        ("network a-b\n----\n\nlose a b RequestLease\n----\n", "never came about"),
    ],
)
def test_a_text_that_cannot_be_played_is_refused(text: str, complaint: str) -> None:
    with pytest.raises(Misread, match=complaint):
        play(text)
