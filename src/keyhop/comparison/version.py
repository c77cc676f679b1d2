"""A short name for the code that decides what a run gives: rows of different code are never mixed."""

from __future__ import annotations

import hashlib
from functools import cache
from importlib import resources
from importlib.resources.abc import Traversable

import keyhop

ROOMS = ("core", "crypto", "files", "simulator")
FILES = ("case.py", "metrics.py", "runner.py", "tally.py", "windows.py")
"""Of this room: how the report looks does not change a row."""
SUFFIXES = (".py", ".yml")
DIGEST_CHARACTERS = 12


@cache
def code_version() -> str:
    """Release and digest of the sources, as `0.1.0+1f3a…`: the same on every machine with the same code."""
    package = resources.files(keyhop)
    digest = hashlib.sha256()
    for room in ROOMS:
        _add(digest, package / room, room)
    for name in FILES:
        file = package / "comparison" / name
        if file.is_file():
            _add(digest, file, name)
    return f"{keyhop.__version__}+{digest.hexdigest()[:DIGEST_CHARACTERS]}"


def _add(digest: hashlib._Hash, place: Traversable, name: str) -> None:
    if place.is_dir():
        for entry in sorted(place.iterdir(), key=lambda entry: entry.name):
            _add(digest, entry, f"{name}/{entry.name}")
    elif name.endswith(SUFFIXES):
        content = place.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
