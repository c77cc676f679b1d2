"""docs/protocol.md says of every frame and message what the program does: numbers, elements and their order, limits."""

import re
from pathlib import Path

import msgspec
import pytest

from keyhop.core import messages
from keyhop.core.messages import (
    BODIES,
    FrameType,
    LabelPiece,
    LabelTerm,
    LinkState,
    Manifest,
    PlainMessage,
    RunState,
    TaggedMessage,
)
from keyhop.wire import frames

TEXT = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text(encoding="utf-8")
MESSAGES = {cls.__name__: cls for union in (TaggedMessage, PlainMessage) for cls in union.__args__}
RECORDS = {cls.__name__: cls for cls in (*BODIES.values(), RunState, Manifest, LinkState, LabelPiece, LabelTerm)}
TABLES = ("Hello", "Proof")


def elements(text: str) -> list[str]:
    """Names of the elements of an array: what stands before each colon, outside brackets."""
    depth, parts = 0, [""]
    for character in text:
        depth += (character in "[(") - (character in "])")
        if character == "," and not depth:
            parts.append("")
        else:
            parts[-1] += character
    return [part.split(":")[0].strip() for part in parts]


def told() -> dict[str, list[str]]:
    """Every record that the text defines, with its number first if it is a message."""
    found = {}
    for number, name, row in re.findall(r"^\| (\d+) \| (\w+)[^|]* \| ([^|]+) \|", TEXT, re.MULTILINE):
        if name in MESSAGES and not row.startswith("see"):
            found[name] = [number, *([] if row == "none" else elements(row))]
    for name, row in re.findall(r"\*\*(\w+)\*\*[:\s=]*`\[(.+?)\]`", TEXT, re.DOTALL):
        found[name] = elements(row.replace("\n", " "))
    for name in TABLES:
        (table,) = re.findall(rf"^\*\*{name}\*\*\n\n(.+?)\n\n", TEXT, re.MULTILINE | re.DOTALL)
        found[name] = [part.strip() for row in table.split("\n")[2:] for part in row.split("|")[1].split(",")]
    return found


@pytest.mark.parametrize("name", MESSAGES)
def test_the_text_gives_each_message_its_number_and_elements(name: str) -> None:
    cls = MESSAGES[name]
    names = [field.name for field in msgspec.structs.fields(cls)]
    assert told()[name] == [str(cls.__struct_config__.tag), *names]


@pytest.mark.parametrize("name", RECORDS)
def test_the_text_gives_each_record_its_elements(name: str) -> None:
    assert told()[name] == [field.name for field in msgspec.structs.fields(RECORDS[name])]


def test_the_text_names_every_frame_type() -> None:
    rows = re.findall(r"^\| (\d) \| ([A-Z]+) \|", TEXT, re.MULTILINE)
    assert rows == [(str(int(kind)), kind.name) for kind in FrameType]


@pytest.mark.parametrize(
    ("limit", "words"),
    [
        (frames.FRAME_LIMIT_BYTES - 4, "10 to 1,048,572"),
        (messages.NAME_LIMIT, "at most 64 characters"),
        (messages.RANGES_PER_MESSAGE, "list(≤4096) of span"),
        (messages.RANGES_PER_RUN_STATE, "touched: list(≤65536) of span"),
        (messages.MESSAGES_PER_FRAME, "messages: list(≤256) of message"),
        (messages.MODULES_PER_PEER, "more than 64 module names"),
        (messages.PLACEMENTS_LIMIT, "placements: list(≤16) of placement"),
        (messages.PATH_LIMIT, "path: list(≤128) of name"),
        (messages.APPLICATIONS_PER_NODE, "list(≤4096) of str"),
        (messages.APPLICATION_NAME_LIMIT, "at most 256 characters"),
        (messages.LABEL_PIECES_LIMIT, "a list of 1 to 256 pieces"),
        (messages.LABEL_TERMS_LIMIT, "terms: list(≤64) of LabelTerm"),
        (messages.LABEL_PATHS_LIMIT, "paths: list(≤8) of"),
        (messages.LABELS_LIMIT_BYTES, "labels: bytes(≤131,072)"),
        (messages.LINKS_PER_NODE, "links: list(≤256) of"),
        (messages.STATEMENT_LIMIT_BYTES, "statement: bytes(≤524288)"),
        (messages.CERTIFICATE_LIMIT_BYTES, "certificate: bytes(≤8192)"),
        (messages.SIGNATURE_LIMIT_BYTES, "signature: bytes(≤1024)"),
    ],
)
def test_the_text_states_the_limit(limit: int, words: str) -> None:
    assert words in TEXT
    assert str(limit) in words.replace(",", "")
