"""`keyhop policy`: what a policy file decides, and which of its rules did."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from keyhop.cli import figures, known, node_api, output
from keyhop.cli.figures import counted
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import FILE, common_options, settings
from keyhop.wire.explain import ExplainAnswer, Outcome, Supply, explain_path

if TYPE_CHECKING:
    from keyhop.core.policy_rules import Policy, Value
    from keyhop.daemon.configuration import NodeFile

POLICY_NAME = "policy.yml"
"""Beside the node file."""
OUTCOMES = {
    Outcome.GIVEN: "a key is there",
    Outcome.LEASED: "a key is there",
    Outcome.WAITS: "a request would wait",
    Outcome.FALLS_BACK: "not enough, so the rule's fallback makes one",
    Outcome.REFUSED: "a request would be refused",
}
"""What a node says, as a sentence begins."""


@click.group()
def policy() -> None:
    """Which applications get what: sizes, classes, quotas, bounds, and what happens when key is short.

    \b
    Example:
      keyhop policy explain sae-alice sae-bob --size 256
    """


@policy.command("check")
@click.argument("file", type=FILE, default=POLICY_NAME)
@common_options
def check(file: Path) -> None:
    """Check a policy file. Exit code 2 with every problem and its line if it is not right.

    \b
    Example:
      keyhop policy check policy.yml
    """
    found = _load(file, None)
    answer = {
        "apiVersion": output.API_VERSION,
        "file": str(file),
        "valid": True,
        "rules": [rule.name for rule in found.rules],
        "links": len(found.links),
    }
    output.emit(answer, lambda: f"{file}: valid policy file, {summary(found)}")


def _extensions(context: click.Context, parameter: click.Parameter, begun: str) -> list[CompletionItem]:
    from keyhop.core.constraints import NAMES

    return [CompletionItem(f"{name}=") for name in NAMES if name.startswith(begun)]


@policy.command("explain")
@click.argument("application", shell_complete=known.applications)
@click.argument("peer", shell_complete=known.applications)
@click.option("--size", type=click.IntRange(1), metavar="BITS", help="Key size asked for; none if not given.")
@click.option(
    "--extension",
    "extensions",
    multiple=True,
    metavar="NAME=JSON",
    shell_complete=_extensions,
    help="A mandatory extension of the request, such as keyhop_max_hops=2. Repeat for more.",
)
@click.option(
    "--policy", "file", type=FILE, help="Policy file; else that of the node file, or policy.yml beside it, or here."
)
@click.option("--config", "node_file", type=FILE, help="Node file: its limits and applications count, too.")
@common_options
def explain(
    application: str,
    peer: str,
    size: int | None,
    extensions: tuple[str, ...],
    file: Path | None,
    node_file: Path | None,
) -> None:
    """What becomes of a request of APPLICATION for a key to share with PEER, and which rule decided each value.

    In a lab, or with --address, the node that serves APPLICATION is asked: its own policy decides, and it says what
    the network has for the request now. With --policy or --config, or where no node answers, a file is explained alone.

    \b
    Example:
      keyhop policy explain vpn-1 vpn-2 --size 256 --extension keyhop_max_hops=2
    """
    members = dict(_member(text) for text in extensions)
    if file is not None or node_file is not None:
        answer = _by_file(application, peer, size, members, file, node_file, "a file was named")
    else:
        answer = _by_node(application, peer, size, members)
    output.emit(answer, lambda: _table(answer))


def _by_file(
    application: str,
    peer: str,
    size: int | None,
    extensions: Mapping[str, Any],
    file: Path | None,
    node_file: Path | None,
    not_asked: str,
) -> ExplainAnswer:
    from msgspec.structs import replace

    from keyhop.daemon.explaining import by_rules

    node, limits = _node(node_file) if node_file else (None, None)
    named = node_file.parent / node.policy if node_file and node and node.policy else None
    found = _load(file or named or (node_file.parent if node_file else Path()) / POLICY_NAME, limits)
    terms = found.terms(application, peer)
    answer, _ = by_rules(terms, application, peer, size, extensions, lambda: _entitled(node, application, peer))
    return replace(answer, not_asked=not_asked)


def _by_node(application: str, peer: str, size: int | None, extensions: Mapping[str, Any]) -> ExplainAnswer:
    """Of the node that serves the application; where none is there to ask and none was meant, of a file beside us."""
    path = explain_path(application, peer, size, extensions)
    answers, failures = node_api.try_all(lambda target: node_api.ask(target, path, ExplainAnswer))
    if answers:
        return answers[0][1]
    absent = (ExitCode.NO_SUCH_THING, ExitCode.UNREACHABLE)
    _, failure = next((one for one in failures if one[1].exit_code not in absent), failures[0])
    if failure.exit_code not in absent or settings().address:
        raise failure
    unknown = any(one[1].exit_code == ExitCode.NO_SUCH_THING for one in failures)
    why = f"no node that answers serves {application}" if unknown else failure.what
    if not Path(POLICY_NAME).exists():
        if unknown:
            fail(why, "", "see: keyhop sae list", ExitCode.NO_SUCH_THING)
        next_step = f"go to a lab that is up, give --address HOST:PORT, or name a file: --policy {POLICY_NAME}"
        fail(f"no node to ask, and no {POLICY_NAME} here", why, next_step, ExitCode.NO_SUCH_THING)
    return _by_file(application, peer, size, extensions, None, None, why)


def summary(found: Policy) -> str:
    return f"{counted(len(found.rules), 'rule')}, {counted(len(found.links), 'link rule')}"


def _table(answer: ExplainAnswer) -> str:
    if answer.refused:
        verdict = f"refused: {answer.refused}"
        verdict += "".join(f"\n  {', '.join(map(str, detail.values()))}" for detail in answer.details)
    else:
        verdict = f"a key of {answer.key_size_bits} bit"
    lines = [f"{answer.application} -> {answer.peer}: {verdict}", f"rule: {answer.rule}"]
    if answer.demands:
        lines.append("demands: " + "; ".join(f"{word} {text}" for word, text in answer.demands.items()))
    if answer.network is not None:
        lines += _network(answer.network)
    elif answer.not_asked:
        lines.append(f"network: not asked ({answer.not_asked})")
    rows = [(word, one.value, str(one.decided_by)) for word, one in answer.values.items()]
    return "\n".join([*lines, "", output.table(("word", "value", "decided by"), rows)])


def _network(found: Supply) -> Iterator[str]:
    yield f"now: {OUTCOMES[found.outcome]}" + (f" ({found.reason})" if found.reason else "")
    for unmet in found.unmet:
        yield f"fails: {unmet['name']}: {unmet['reason']}"
    if found.route is not None:
        way = found.route
        if not way.path:
            yield f"path: none from {found.node} to {found.peer_node}: {way.reason}"
        else:
            stored = figures.size(way.narrowest_stored_bytes)
            yield (
                f"path: {figures.path(way.path)}, {counted(way.hops, 'hop')}; narrowest link {way.narrowest_link}, "
                f"{figures.rate(way.narrowest_bps)}, {stored} stored"
            )
    if found.pool is not None:
        yield (
            f"stock: {figures.size(found.in_hand_bytes)} in hand and {figures.size(found.leasable_bytes)} to reserve "
            f"would do, of {figures.size(found.pool.stored_bytes)} shared with {found.peer_node}"
        )
    if (key := found.label) is not None:
        parts = [
            f"grade {key.grade}",
            "no epsilon claimed" if key.epsilon is None else f"epsilon {key.epsilon:g}",
            f"{figures.age(key.age_s)} old",
            counted(key.hops, "hop"),
            *(figures.path(path) for path in key.paths),
            f"trust {key.trust}",
        ]
        parts += [f"vendors {', '.join(key.vendors)}"] if key.vendors else []
        yield f"{'oldest' if found.unmet else 'next'} key: {', '.join(parts)}"


def _member(text: str) -> tuple[str, Any]:
    import msgspec

    name, equals, value = text.partition("=")
    if not equals or not name:
        fail(f"--extension {text!r} has no value", "", "write NAME=JSON, such as keyhop_max_hops=2", ExitCode.USAGE)
    try:
        return name, msgspec.json.decode(value)
    except msgspec.DecodeError:
        # A word without quotes is meant as a text: a shell takes the quotes away.
        return name, value


def _load(file: Path, limits: Mapping[str, Value] | None) -> Policy:
    from keyhop.files import FileError
    from keyhop.files.policy import load_policy

    try:
        return load_policy(file, limits)
    except FileError as error:
        output.refuse_file(error, "see: keyhop config schema policy")


def _node(file: Path) -> tuple[NodeFile, dict[str, Value]]:
    from keyhop.daemon.configuration import load_node_file
    from keyhop.daemon.policies import limits_of
    from keyhop.emulator.module import DRIVERS
    from keyhop.files import FileError

    try:
        node = load_node_file(file, DRIVERS)
    except FileError as error:
        output.refuse_file(error, "see: keyhop config schema node")
    return node, limits_of(node, file)


def _entitled(node: NodeFile | None, application: str, peer: str) -> None:
    """As far as the node file can say. Raises RequestError."""
    from keyhop.core.model import Refusal, RequestError

    if node is None:
        return
    entry = next((entry for entry in node.applications if entry.id == application), None)
    if entry is None:
        raise RequestError(Refusal.NOT_AUTHORISED, f"{application} is no application of node {node.node.id}")
    if peer not in entry.peers and not (peer == application and entry.self_association):
        raise RequestError(
            Refusal.NOT_AUTHORISED, f"{application} may not share keys with {peer} (applications: peers)"
        )
