"""The command frame: help, wrong words, exit codes, forms of output."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import msgspec
import pytest
from pretend import Node, Run

from keyhop import __version__
from keyhop.cli import figures, output
from keyhop.cli.main import COMMANDS, cli
from keyhop.cli.output import ExitCode
from keyhop.emulator import devices, network
from keyhop.simulator import topology
from keyhop.wire import manage

HEAVY = ("aiohttp", "cryptography", "ruamel", "networkx", "msgspec", "rich", "uvloop", "structlog", "keyhop.daemon")


def walk(command: click.Command, path: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], click.Command]]:
    yield path, command
    if isinstance(command, click.Group):
        context = click.Context(command)
        for name in command.list_commands(context):
            found = command.get_command(context, name)
            assert found is not None
            yield from walk(found, (*path, name))


OURS = ("status", "ping", "link", "pool", "route", "sae", "key", "pki", "config", "completion", "version")


def _all() -> dict[str, click.Command]:
    found: dict[str, click.Command] = {}
    for name in OURS:
        command = cli.get_command(click.Context(cli), name)
        assert command is not None
        found |= {" ".join(path): inner for path, inner in walk(command, (name,))}
    return found


ALL = _all()


@pytest.mark.parametrize("path", ALL)
def test_every_command_explains_itself_with_an_example(path: str, run: Run) -> None:
    result = run(*path.split(), "--help")
    assert result.exit_code == 0
    assert "Example:" in result.output
    assert f"keyhop {path}" in result.output.split("Example:")[1]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_listed_command_can_be_loaded(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert isinstance(command, click.Command)
    assert command.name == name


def test_help_lists_the_commands_and_loads_none() -> None:
    """What makes `keyhop --help` appear at once."""
    code = (
        "import sys\nfrom keyhop.cli.main import main\n"
        "try:\n    main(['--help'])\nexcept SystemExit:\n    pass\n"
        f"loaded = [name for name in {HEAVY!r} if name in sys.modules]\nsys.exit(repr(loaded) if loaded else 0)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=30, check=False)
    assert ended.returncode == 0, ended.stderr
    for name in COMMANDS:
        assert f"\n  {name} " in ended.stdout


@pytest.mark.parametrize(
    ("arguments", "what", "next_step"),
    [
        (["lnk"], "no such command 'lnk'. Did you mean 'link'?", "see: keyhop --help"),
        (["xyz"], "no such command 'xyz'", "see: keyhop --help"),
        (["pki", "issue"], "missing argument '{kme|sae|operator}'. Choose from: kme, sae, operator", "see: keyhop pki"),
        (["link", "lsit"], "no such command 'lsit'. Did you mean 'list'?", "see: keyhop link --help"),
        (["link", "list", "--al"], "no such option '--al'", "see: keyhop link list --help"),
        (["link", "show"], "missing argument 'LINK'", "see: keyhop link show --help"),
        (["link", "list", "extra"], "got unexpected extra argument (extra)", "see: keyhop link list --help"),
        (["-o", "xml", "version"], "invalid value for '-o' / '--output': 'xml' is not one of", "see: keyhop --help"),
        (
            ["key", "get", "b", "-n", "0"],
            "invalid value for '-n': 0 is not in the range x>=1",
            "see: keyhop key get --help",
        ),
        (["key", "get", "b", "--size", "many"], "invalid value for '--size'", "see: keyhop key get --help"),
        (["key", "fetch", "a"], "missing argument 'KEY_ID...'", "see: keyhop key fetch --help"),
        (["pki", "issue", "sea", "x"], "'sea' is not one of 'kme', 'sae', 'operator'", "see: keyhop pki issue --help"),
        (["route", "show", "A"], "missing argument 'B'", "see: keyhop route show --help"),
        (["completion", "csh"], "'csh' is not one of 'bash', 'zsh', 'fish'", "see: keyhop completion --help"),
        (["ping", "b", "-c", "0"], "0 is not in the range", "see: keyhop ping --help"),
        (["link", "list", "--address", "nowhere"], "'nowhere' is no address", "write host:port, such as"),
    ],
)
def test_wrong_words_say_what_and_what_next(run: Run, arguments: list[str], what: str, next_step: str) -> None:
    result = run(*arguments)
    assert result.exit_code == ExitCode.USAGE
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ") and what in first
    assert second.startswith(f"  {next_step}") and second.endswith("[exit 2]")


def test_a_group_alone_shows_its_help(run: Run) -> None:
    result = run("link")
    assert result.exit_code == ExitCode.USAGE
    assert "Usage: keyhop link" in result.stderr


def test_an_interrupted_command_ends_as_shells_expect(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("keyhop.cli.output.emit", interrupt)
    result = run("version")
    assert result.exit_code == 130
    assert result.stderr.strip() == "stopped"


def test_version_in_every_form(run: Run) -> None:
    assert run("version").stdout.startswith(f"Keyhop {__version__}  Python ")
    answer = msgspec.json.decode(run("version", "-o", "json").stdout)
    assert (answer["apiVersion"], answer["version"]) == ("keyhop/v1", __version__)
    assert f"version: {__version__}" in run("version", "-o", "yaml").stdout


def test_options_stand_before_or_after_the_command(run: Run) -> None:
    assert run("-o", "json", "version").stdout == run("version", "-o", "json").stdout
    assert run("-o", "json", "version", "-o", "yaml").stdout == run("version", "-o", "yaml").stdout


@pytest.mark.parametrize("shell", ["bash", "zsh", "fish"])
def test_completion_names_our_command(run: Run, shell: str) -> None:
    result = run("completion", shell)
    assert result.exit_code == 0
    assert "_KEYHOP_COMPLETE" in result.stdout and "keyhop" in result.stdout


def test_completion_completes_commands_and_their_own(run: Run) -> None:
    def complete(words: str, at: int) -> str:
        env = {"_KEYHOP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(at)}
        return run(env=env).stdout

    assert "plain,route" in complete("keyhop rou", 1)
    assert "plain,validate" in complete("keyhop config va", 2)
    assert complete("keyhop zzz", 1).strip() == ""


@pytest.mark.parametrize(
    ("words", "names"),
    [
        ("keyhop lab cut a", ["alice-relay"]),
        ("keyhop lab cut --lab keyhop-lab a", ["alice-relay"]),
        ("keyhop link show b", ["bob-relay"]),
        ("keyhop pool show ", ["alice", "bob", "relay"]),
        ("keyhop route show alice ", ["alice", "bob", "relay"]),
        ("keyhop sae show s", ["sae-alice", "sae-bob"]),
        ("keyhop ping s", ["sae-alice", "sae-bob"]),
        ("keyhop key get sae-bob --from sae-a", ["sae-alice"]),
        ("keyhop key fetch sae-b", ["sae-bob"]),
        ("keyhop lab up lin", ["line3", "line5"]),
        ("keyhop demo secoq", ["secoqc", "secoqc_vienna_2008"]),
    ],
)
def test_completion_completes_names_of_the_lab_and_of_networks(run: Run, words: str, names: list[str]) -> None:
    network.create(devices.plan(topology.load_builtin("line3")), Path("keyhop-lab"))
    env = {"_KEYHOP_COMPLETE": "bash_complete", "COMP_WORDS": words, "COMP_CWORD": str(len(words.split(" ")) - 1)}
    completed = run(env=env).stdout.split()
    assert [entry.removeprefix("plain,") for entry in completed if entry.startswith("plain,")] == names


def test_completion_without_a_lab_or_with_a_damaged_one_is_silent(run: Run, tmp_path: Path) -> None:
    env = {"_KEYHOP_COMPLETE": "bash_complete", "COMP_WORDS": "keyhop lab cut a", "COMP_CWORD": "3"}
    assert run(env=env).output.strip() == ""
    (tmp_path / "lab.json").write_text("junk")
    assert run(env=env).output.strip() == ""


def test_colours_come_with_a_terminal_only_and_go_on_request(run: Run, node: Node) -> None:
    link = manage.Link(id="A-B", ends=("A", "B"), peer="B", state=manage.LinkState.UP)
    node.answers[manage.LINKS_PATH] = manage.LinksAnswer(links=(link,))
    arguments = ["link", "list", "--address", node.address]
    assert "\x1b[" not in run(*arguments).stdout
    assert "\x1b[32m" in run(*arguments, color=True).stdout
    assert "\x1b[" not in run("--no-color", *arguments, color=True).stdout
    assert "\x1b[" not in run(*arguments, color=True, env={"NO_COLOR": "1"}).stdout


def test_a_last_column_with_a_coloured_word_leaves_no_blanks_behind_it() -> None:
    with click.Context(cli, color=True):
        text = output.table(("feasible", ""), [("yes", ""), ("no", "cut")])
    assert click.unstyle(text).splitlines() == ["FEASIBLE", "yes", "no        cut"]


def test_columns_stand_under_their_heads() -> None:
    text = output.table(("a", "long head"), [("1", "x"), ("wide word", "y")])
    assert text.splitlines() == ["A          LONG HEAD", "1          x", "wide word  y"]
    assert output.table(("a",), [], "no links") == "no links"


@pytest.mark.parametrize(
    ("shown", "text"),
    [
        (figures.rate(None), "-"),
        (figures.rate(0), "0"),
        (figures.rate(5700), "5.7 kb/s"),
        (figures.rate(600), "0.6 kb/s"),
        (figures.rate(12), "12 b/s"),
        (figures.rate(2.5e6), "2.5 Mb/s"),
        (figures.rate(-1900, signed=True), "-1.9 kb/s"),
        (figures.rate(100, signed=True), "+0.1 kb/s"),
        (figures.size(None), "-"),
        (figures.size(512), "512 B"),
        (figures.size(9000), "9.0 kB"),
        (figures.size(31_000), "31 kB"),
        (figures.size(64_000_000), "64 MB"),
        (figures.percent(0.124), "12.4%"),
        (figures.percent(None), "-"),
        (figures.age(41), "41s"),
        (figures.age(192), "3m12s"),
        (figures.age(18_420), "5h07m"),
        (figures.age(187_300), "2d4h"),
        (figures.age(None), "-"),
        (figures.fill(31_000, 64_000), "31 kB  ( 48%)"),
        (figures.fill(10, 0), "10 B"),
        (figures.path(()), "-"),
    ],
)
def test_figures_read_as_people_write_them(shown: str, text: str) -> None:
    assert shown == text
