"""What the documents say that can be looked up: links, fenced samples, commands, names of files and of code."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).resolve().parents[2]
SOURCE = ROOT / "src" / "keyhop"
DOCS = ROOT / "docs"
DRAWN = "Drawn by docs/build.py"

_FENCE = re.compile(r"^```(\w*)[^\n]*\n(.*?)^```$", re.MULTILINE | re.DOTALL)
_MARK = re.compile(r"<!-- runs(?:: (\S+))? -->\n\Z")
_CODE = re.compile(r"`([^`\n]+)`")
_LINK = re.compile(r"\]\(([^)\s]+)\)")


def documents() -> list[Path]:
    """Every page of the project, whoever wrote it."""
    return sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md")])


class Sample(NamedTuple):
    page: Path
    language: str
    text: str
    mark: str | None
    """None: not to be run on its own; empty or a file's name: to be run."""


def samples(page: Path) -> Iterator[Sample]:
    text = page.read_text(encoding="utf-8")
    for fence in _FENCE.finditer(text):
        mark = _MARK.search(text[: fence.start()])
        yield Sample(page, fence[1], fence[2], (mark[1] or "") if mark else None)


def prose(page: Path) -> str:
    """The page without its fenced samples."""
    return _FENCE.sub("", page.read_text(encoding="utf-8"))


def spans(page: Path) -> list[str]:
    """What stands between single backticks."""
    return _CODE.findall(prose(page))


def links(page: Path) -> list[str]:
    return [target for target in _LINK.findall(prose(page)) if "://" not in target and not target.startswith("mailto:")]


def anchors(page: Path) -> set[str]:
    """Headings, as they are turned into anchors by the usual viewers."""
    titles = re.findall(r"^#+ (.+)$", prose(page), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


def commands(page: Path) -> Iterator[str]:
    """Every `keyhop …` that a reader may type."""
    for sample in samples(page):
        if sample.language not in ("sh", "console"):
            continue
        for line in sample.text.splitlines():
            line = line.removeprefix("$ ") if sample.language == "console" else line
            yield from (part.strip() for part in re.split(r"&&|;|\|", line) if part.strip().startswith("keyhop "))
    for span in spans(page):
        if span.startswith("keyhop ") and "…" not in span and "\\" not in span:
            yield span


class Names(NamedTuple):
    classes: dict[str, set[str]]
    """Class -> its methods, fields and constants."""
    functions: set[str]
    modules: dict[str, set[str]]
    """Dotted name below `keyhop`, or `bench.…`, `tests.…` -> what it defines."""


@cache
def names() -> Names:
    found = Names({}, set(), {})
    for folder in (SOURCE, ROOT / "tests", ROOT / "bench", DOCS):
        for path in sorted(folder.rglob("*.py")):
            _read(path, found)
    return found


def _read(path: Path, found: Names) -> None:
    inside = path.relative_to(SOURCE) if path.is_relative_to(SOURCE) else path.relative_to(ROOT)
    parts = inside.with_suffix("").parts
    defined = found.modules.setdefault(".".join(parts[:-1] if parts[-1] == "__init__" else parts), set())
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for statement in tree.body:
        defined.update(_defined(statement))
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.functions.add(node.name)
        elif isinstance(node, ast.ClassDef):
            members = found.classes.setdefault(node.name, set())
            for part in ast.walk(node):
                members.update(_defined(part))
                if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name) and part.value.id == "self":
                    members.add(part.attr)


def _defined(node: ast.AST) -> Iterator[str]:
    match node:
        case ast.FunctionDef(name=name) | ast.AsyncFunctionDef(name=name) | ast.ClassDef(name=name):
            yield name
        case ast.AnnAssign(target=ast.Name(id=name)):
            yield name
        case ast.Assign(targets=targets):
            yield from (target.id for target in targets if isinstance(target, ast.Name))
        case ast.ImportFrom(names=aliases):
            yield from (alias.asname or alias.name for alias in aliases)
        case _:
            pass


def is_file(name: str, page: Path) -> bool:
    """Whether a name of a file or folder is one of ours: from the root, from the package, or from beside the page."""
    bare = name.rstrip("/")
    if "/" not in bare and any(path.name == bare for path in _all_files()):
        return True
    return any((place / bare).exists() for place in (ROOT, SOURCE, page.parent, ROOT / "tests"))


@cache
def _all_files() -> tuple[Path, ...]:
    return tuple(path for folder in (SOURCE, ROOT / "tests", ROOT / "bench", DOCS) for path in folder.rglob("*.*"))


def is_code(name: str) -> bool:
    """Whether a dotted name, with or without (), stands somewhere in the code."""
    dotted = name.split("(")[0].removeprefix("keyhop.")
    known = names()
    if dotted in known.modules or dotted in known.functions or dotted in known.classes:
        return True
    head, _, last = dotted.rpartition(".")
    if head in known.modules:
        return last in known.modules[head]
    owner, _, kind = head.rpartition(".")
    if kind in known.classes and (not owner or kind in known.modules.get(owner, ())):
        return last in known.classes[kind]
    # As the SDK shows itself: `Kme.get_key` of `keyhop`.
    return not head and last in known.modules.get("", ())
