"""What the documents say is so: links lead somewhere, commands and names exist, drawn pages are fresh."""

from __future__ import annotations

import builtins
import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import pytest
from click.testing import CliRunner

from keyhop.cli.main import cli
from keyhop.core.designs import DESIGNS
from keyhop.core.model import LIFE

from .documents import DOCS, DRAWN, ROOT, anchors, commands, documents, is_code, is_file, links, names, samples, spans

FILE = re.compile(
    r"[\w./-]+\.(py|md|txt|yml|yaml|toml|json|jsonl|c|svg)|(src|tests|docs|bench|core|daemon|cli)/[\w./-]*"
)
MADE_BY_A_NODE = {
    "keyhop.yml",
    "policy.yml",
    "audit.jsonl",
    "link.json",
    "lab.json",
    "control.json",
    "key.json",
    "talk.py",
    "node.db",
}
"""Files of a reader's own directory."""
DOTTED = re.compile(r"[A-Za-z_]\w*(\.[A-Za-z_]\w*)+(\(.*\))?")
CALL = re.compile(r"[a-z_]\w*\([\w, .=\[\]]*\)")
CLASS = re.compile(r"[A-Z][a-z0-9]+([A-Z][a-z0-9]+)+")
PYTHONS_OWN = set(dir(builtins))
ROOMS = {
    "core",
    "crypto",
    "wire",
    "daemon",
    "simulator",
    "emulator",
    "client",
    "cli",
    "files",
    "keyhop",
    "bench",
    "tests",
}

FORBIDDEN = {
    "a path of somebody's machine": re.compile(r"(?<![\w.])/(work|home|root|tmp|Users)/\w"),
    "a registry": re.compile(r"pypi\.org|pythonhosted|npmjs|proxy\.golang|crates\.io|jsdelivr|cdnjs", re.IGNORECASE),
    "an address on the network": re.compile(r"\b(10|172\.(1[6-9]|2\d|3[01])|192\.168)(\.\d{1,3}){2,3}\b"),
}

PAGES = [pytest.param(page, id=str(page.relative_to(ROOT))) for page in documents()]


@pytest.mark.parametrize("page", PAGES)
def test_every_relative_link_leads_somewhere(page: Path) -> None:
    for target in links(page):
        name, _, anchor = target.partition("#")
        found = page.parent / name if name else page
        assert found.exists(), f"{page.name}: {target} leads nowhere"
        assert not anchor or anchor in anchors(found), f"{page.name}: {found.name} has no heading #{anchor}"


def command_of(words: list[str]) -> tuple[list[str], click.Command]:
    """The sub-command that these words name, and the words that name it."""
    command: click.Command = cli
    named: list[str] = []
    while isinstance(command, click.Group) and words:
        # Options of the whole, such as --address HOST:PORT, stand before the sub-command.
        if words[0].startswith("-"):
            option = next(p for p in command.params if words[0].split("=")[0] in p.opts)
            words = words[1 if getattr(option, "is_flag", False) or "=" in words[0] else 2 :]
            continue
        found = command.get_command(click.Context(command), words[0])
        if found is None:
            break
        named.append(words[0])
        command, words = found, words[1:]
    return named, command


@pytest.mark.parametrize("page", PAGES)
def test_every_command_shown_exists_with_its_options(page: Path) -> None:
    for text in commands(page):
        words = shlex.split(text.replace("2>", "").rstrip("&").replace("...", "X"), comments=True)[1:]
        bare = [word for word in words if not re.fullmatch(r"[A-Z]+(:[A-Z]+)?|\[.*", word)]
        named, command = command_of(list(bare))
        plain = next((word for word in bare if not word.startswith("-")), None)
        assert plain is None or named, f"{page.name}: `{text}`: no command {plain!r}"
        assert not isinstance(command, click.Group) or bare == named, f"{page.name}: `{text}` names no sub-command"
        shown = CliRunner().invoke(cli, [*named, "--help"])
        assert shown.exit_code == 0, f"{page.name}: `{text}`: --help ends with {shown.exit_code}"
        known = {option for owner in (cli, command) for param in owner.params for option in param.opts} | {"--help"}
        for word in words:
            if re.match(r"--?[a-z]", word):
                assert word.split("=")[0] in known, f"{page.name}: `{text}` has no option {word}"


@pytest.mark.parametrize("page", PAGES)
def test_every_file_named_exists(page: Path) -> None:
    for span in spans(page):
        if FILE.fullmatch(span) and span not in MADE_BY_A_NODE:
            assert is_file(span, page), f"{page.name}: no file {span}"


@pytest.mark.parametrize("page", PAGES)
def test_every_name_of_code_exists(page: Path) -> None:
    for span in spans(page):
        if FILE.fullmatch(span) or " " in span.split("(")[0]:
            continue
        first = span.split(".")[0]
        dotted = DOTTED.fullmatch(span) and (first in ROOMS or first in names().classes or CLASS.fullmatch(first))
        if dotted or CALL.fullmatch(span) or (CLASS.fullmatch(span) and span not in PYTHONS_OWN):
            assert is_code(span), f"{page.name}: nothing is called {span}"
        if re.fullmatch(r"test_\w+", span):
            assert span in names().functions or is_file(f"{span}.py", page), f"{page.name}: no test {span}"


@pytest.mark.parametrize("page", PAGES)
def test_python_samples_are_marked_to_run_or_at_least_compile(page: Path) -> None:
    for sample in samples(page):
        if sample.language == "python":
            compile(sample.text, str(page), "exec")


def test_no_document_shows_a_machine_of_ours_or_a_registry() -> None:
    for path in [*documents(), *DOCS.rglob("*.svg")]:
        text = path.read_text(encoding="utf-8")
        for what, pattern in FORBIDDEN.items():
            found = pattern.search(text)
            assert found is None, f"{path.name} shows {what}: {found and found[0]}"


def test_pictures_fetch_nothing() -> None:
    for path in DOCS.rglob("*.svg"):
        text = path.read_text(encoding="utf-8").replace("http://www.w3.org/2000/svg", "")
        assert "http" not in text, f"{path.name} points to another place"
        assert "url(#" in text, f"{path.name} is no picture that rich made"


def builder() -> ModuleType:
    spec = importlib.util.spec_from_file_location("docs_build", DOCS / "build.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_drawn_pages_are_as_the_code_draws_them_now() -> None:
    drawn = builder().pages()
    assert len(drawn) == len(DESIGNS) + 3
    for path, text in drawn.items():
        assert path.read_text(encoding="utf-8") == text, f"{path.name} is old: python docs/build.py"


def test_no_page_says_drawn_that_is_not() -> None:
    drawn = set(builder().pages())
    assert {page for page in documents() if page.read_text(encoding="utf-8").startswith(f"<!-- {DRAWN}")} == drawn


def test_the_diagram_has_every_legal_move_and_no_other() -> None:
    arrows = re.findall(
        r"^    (\w+) --> (\w+): (\w+)$", (DOCS / "key-states.md").read_text(encoding="utf-8"), re.MULTILINE
    )
    assert sorted(arrows) == sorted((a, b, action) for a, moves in LIFE.items() for action, b in moves.items())


def test_every_decision_says_problem_choice_and_what_was_refused() -> None:
    pages = sorted((DOCS / "decisions").glob("*.md"))
    numbers = [int(page.name[:4]) for page in pages]
    assert numbers == list(range(1, len(pages) + 1)), "decisions are numbered without gaps"
    for page in pages:
        text = page.read_text(encoding="utf-8")
        for part in ("Problem", "Choice", "Refused"):
            assert f"**{part}.**" in text or f"## {part}" in text, f"{page.name} has no {part}"


def test_the_readme_gives_the_two_commands_that_ci_runs() -> None:
    commands_of_ci = (ROOT / ".ci" / "run").read_text(encoding="utf-8")
    shell = [sample.text.strip() for sample in samples(ROOT / "README.md") if sample.language == "sh"]
    assert shell == ["pip install . && keyhop demo", "pip install '.[test]' && pytest"]
    assert "pip install -q '.[test]' && pytest" in commands_of_ci and "keyhop demo --once" in commands_of_ci


@pytest.mark.parametrize("wrong", ["docs/no_such.py", "core/node/no_such.py"])
def test_the_check_of_files_can_fail(wrong: str) -> None:
    assert FILE.fullmatch(wrong) and not is_file(wrong, ROOT / "README.md")


@pytest.mark.parametrize(
    "wrong", ["core.model.NO_SUCH", "Driver.no_such", "no_such_function()", "NoSuchClass", "core.nothing"]
)
def test_the_check_of_names_can_fail(wrong: str) -> None:
    assert not is_code(wrong)
