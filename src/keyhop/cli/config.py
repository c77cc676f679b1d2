"""`keyhop config`: are the files right, and what may stand in them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING, NoReturn

import click

from keyhop.cli import output
from keyhop.cli.figures import counted
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import FILE, common_options, settings

if TYPE_CHECKING:
    from keyhop.files import FileError

KINDS = ("node", "topology", "policy", "simulation")
_TOPOLOGY = re.compile(rb"^nodes\s*:", re.MULTILINE)
_SIMULATION = re.compile(rb"^(topology|path)\s*:", re.MULTILINE)
_POLICY = re.compile(rb"^(rules|default)\s*:", re.MULTILINE)
HEAD_BYTES = 1 << 20


@click.group()
def config() -> None:
    """Node files, topologies, policies and simulations.

    \b
    Example:
      keyhop config validate keyhop.yml
    """


@config.command("validate")
@click.argument("file", type=FILE)
@click.option("--kind", type=click.Choice(KINDS), help="What the file is; by its first words if not given.")
@common_options
def validate(file: Path, kind: str | None) -> None:
    """Check a file of one of these kinds. Exit code 2 with every problem and its line if it is not right.

    \b
    Example:
      keyhop config validate secoqc.keyhop.yml
    """
    from keyhop.files import FileError

    found = _kind_of(file)
    chosen = kind or found
    try:
        summary = _summary(file, chosen)
    except FileError as error:
        _refuse(file, chosen, error)
    answer = {"apiVersion": output.API_VERSION, "file": str(file), "kind": chosen, "valid": True, "problems": []}
    output.emit(answer, lambda: f"{file}: valid {chosen} file, {summary}")


@config.command("schema")
@click.argument("kind", type=click.Choice(KINDS), default="topology")
@common_options
def schema(kind: str) -> None:
    """Print the JSON Schema of a kind of file, for editors.

    \b
    Example:
      keyhop config schema topology > keyhop-topology.schema.json
    """
    from keyhop.daemon.configuration import node_schema
    from keyhop.emulator.module import DRIVERS
    from keyhop.files.policy import policy_schema
    from keyhop.simulator.simulation import simulation_schema
    from keyhop.simulator.topology import topology_schema

    made = {
        "node": lambda: node_schema(DRIVERS),
        "topology": topology_schema,
        "policy": policy_schema,
        "simulation": simulation_schema,
    }[kind]()
    if settings().output == "table":
        settings().output = "json"
    output.emit(made, str)


def _kind_of(file: Path) -> str:
    from keyhop.files import UnreadableFileError

    try:
        with file.open("rb") as opened:
            head = opened.read(HEAD_BYTES)
    except OSError as error:
        output.refuse_file(UnreadableFileError(file, error), "")
    if _TOPOLOGY.search(head):
        return "topology"
    if _SIMULATION.search(head):
        return "simulation"
    return "policy" if _POLICY.search(head) else "node"


def _summary(file: Path, kind: str) -> str:
    if kind == "topology":
        from keyhop.simulator.topology import load

        network = load(file)
        inserted = sum(node.inserted for node in network.nodes.values())
        relays = f" ({inserted} of them relays on long links)" if inserted else ""
        links, apps = counted(len(network.links), "link"), counted(len(network.apps), "app")
        return f"{counted(len(network.nodes), 'node')}{relays}, {links}, {apps}"
    if kind == "simulation":
        from keyhop.simulator import simulation

        setup = simulation.load(file)
        keys = counted(len(setup.scenario.demands), "request")
        return f"{setup.design} on {setup.network}, {setup.asked_by}: {keys} in {setup.seconds:g} s"
    if kind == "policy":
        from keyhop.cli.policy import summary
        from keyhop.files.policy import load_policy

        return summary(load_policy(file))
    from keyhop.daemon.configuration import load_node_file
    from keyhop.emulator.module import DRIVERS

    node = load_node_file(file, DRIVERS)
    links, applications = counted(len(node.links), "link"), counted(len(node.applications), "application")
    return f"node {node.node.id}, {links}, {applications}"


def _refuse(file: Path, kind: str, error: FileError) -> NoReturn:
    problems = [
        {"line": problem.line, "place": problem.place, "what": problem.what, "legal": problem.legal}
        for problem in error.problems
    ]
    if settings().output != "table":
        answer = {
            "apiVersion": output.API_VERSION,
            "file": str(file),
            "kind": kind,
            "valid": False,
            "problems": problems,
        }
        output.emit(answer, str)
    count = f"{len(problems)} problem{'s' * (len(problems) != 1)}"
    lines = "\n  ".join(str(problem) for problem in error.problems)
    fail(f"{file} is no valid {kind} file", count, f"{lines}\n  see: keyhop config schema {kind}", ExitCode.USAGE)
