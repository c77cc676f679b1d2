"""`keyhop lab`: a QKD network on this machine, with real nodes and emulated modules."""

from __future__ import annotations

import dataclasses
import os
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from keyhop.cli import figures, known, node_api, output
from keyhop.cli.output import ExitCode, fail
from keyhop.cli.settings import FILE, common_options, settings

if TYPE_CHECKING:
    from keyhop.emulator.control import Control
    from keyhop.emulator.inspection import NodeView
    from keyhop.emulator.lab import Lab
    from keyhop.emulator.network import Plan
    from keyhop.wire.manage import Link

DEFAULT_DIRECTORY = "keyhop-lab"
DEFAULT_EVE_FRACTION = 0.5
FORMATS = ("svg", "dot", "mermaid")
ResultT = TypeVar("ResultT")


@click.group()
def lab() -> None:
    """A QKD network on this machine: real nodes, emulated QKD.

    \b
    Example:
      keyhop lab up secoqc
    """


@lab.command(short_help="Start a network: a file, a name, or the lab here.")
@click.argument("network", metavar="[FILE|NAME]", required=False, shell_complete=known.networks)
@click.option("--dir", "directory", type=FILE, help=f"Where it lives; {DEFAULT_DIRECTORY}.")
@click.option("--design", metavar="NAME", shell_complete=known.designs, help="The design of all its nodes; keyhop.")
@click.option("--one-process", is_flag=True, help="All nodes in one process: saves memory; they end together.")
@common_options
def up(network: str | None, directory: Path | None, design: str | None, one_process: bool) -> None:
    """Start a network: a topology file, a built-in one, or the lab that is in the directory.

    Makes certificates, link secrets and node files, and starts one process per node. A lab that was taken down goes
    on with the key it has.

    \b
    Examples:
      keyhop lab up secoqc
      keyhop lab up my-net.keyhop.yml --dir my-lab
      keyhop lab up p2p --design cisco
      keyhop lab up
    """
    from keyhop.emulator import lab as labs

    place = _place(directory, network)
    found = _made(place, network, design)
    output.say(f"{found.state.title or found.state.name}: emulated QKD, real key managers, everything on this machine")

    def ready(node: str) -> None:
        output.say(f"  {node} is ready")

    _told(lambda: labs.start(found, became_ready=ready, one_process=one_process))
    output.say("Key comes from this machine's generator: do not protect real data with it.")
    _show(found)
    if (next_step := _first_key(found)) is not None:
        output.say(f"Next: {next_step}")


@lab.command()
@common_options
def inspect() -> None:
    """Nodes, links and what is done to them. Exit code 7 if a node died.

    \b
    Example:
      keyhop lab inspect -o json
    """
    _show(_here())


@lab.command()
@click.argument("network", metavar="[FILE|NAME]", required=False, shell_complete=known.networks)
@click.option("--format", "form", type=click.Choice(FORMATS), default="mermaid", show_default=True)
@common_options
def graph(network: str | None, form: str) -> None:
    """Draw a topology, or the lab here with the states of its links.

    \b
    Example:
      keyhop lab graph secoqc --format svg > secoqc.svg
    """
    from keyhop.emulator import graph as drawing

    if network is None:
        found = _here()
        name, (nodes, links) = found.state.name, _drawn_lab(found)
    else:
        plan = _plan(network)
        name, (nodes, links) = plan.name, _drawn_plan(plan)
    text = drawing.draw(name, nodes, links, drawing.Format(form))
    output.emit({"apiVersion": output.API_VERSION, "name": name, "format": form, "text": text}, text.rstrip)


@lab.command()
@click.argument("link", metavar="LINK", shell_complete=known.links)
@click.option(
    "--fraction",
    type=click.FloatRange(0.0, 1.0),
    default=DEFAULT_EVE_FRACTION,
    show_default=True,
    help="Share of the pulses she measures and sends again; each tenth lifts the QBER by 2.5 %.",
)
@common_options
def eve(link: str, fraction: float) -> None:
    """Put an eavesdropper on a link.

    \b
    Example:
      keyhop lab eve BRT-SIE --fraction 0.3
    """
    from keyhop.emulator import control

    _act(link, lambda directory, name: control.set_eve(directory, name, fraction))


@lab.command()
@click.argument("link", metavar="LINK", shell_complete=known.links)
@common_options
def cut(link: str) -> None:
    """Cut the fibre of a link.

    \b
    Example:
      keyhop lab cut ERD-GUD
    """
    from keyhop.emulator import control

    _act(link, control.cut)


@lab.command()
@click.argument("link", metavar="LINK", shell_complete=known.links)
@common_options
def restore(link: str) -> None:
    """Mend the fibre of a link and send the eavesdropper away.

    \b
    Example:
      keyhop lab restore ERD-GUD
    """
    from keyhop.emulator import control

    _act(link, control.restore)


@lab.command()
@common_options
def down() -> None:
    """End all nodes of the lab. Its directory stays: `keyhop lab up` goes on from there.

    \b
    Example:
      keyhop lab down
    """
    from keyhop.emulator import lab as labs

    found = _here()
    was_running = [node.id for node in found.state.nodes if found.alive(node.id)]
    killed = _told(lambda: labs.stop(found))
    answer = {
        "apiVersion": output.API_VERSION,
        "name": found.state.name,
        "directory": str(found.directory),
        "ended": was_running,
        "killed": killed,
    }
    ended = f"{found.state.name}: {len(was_running)} nodes ended" if was_running else f"{found.state.name} was not up"
    if killed:
        ended += f" ({', '.join(killed)} had to be killed)"
    output.emit(answer, lambda: ended)
    output.say(f"{found.directory} stays: `keyhop lab up` goes on from there, or delete it.")


def _first_key(found: Lab) -> str | None:
    """What to type to see a key cross the lab from here; None where there are no two applications at two nodes."""
    from keyhop.emulator import lab as labs

    masters = [(node.id, name) for node in found.state.nodes for name in node.applications]
    if not masters or all(node == masters[0][0] for node, _ in masters):
        return None
    peer = next(name for node, name in reversed(masters) if node != masters[0][0])
    here = labs.find_lab(Path.cwd())
    words = ["keyhop", "ping", peer, "--from", masters[0][1]]
    if here is None or here.resolve() != found.directory:
        words += ["--lab", os.path.relpath(found.directory)]
    return shlex.join(words)


def _place(directory: Path | None, network: str | None) -> Path:
    from keyhop.emulator.lab import find_lab

    given = directory or settings().lab
    if given is not None:
        return given
    found = find_lab(Path.cwd()) if network is None else None
    return found or Path(DEFAULT_DIRECTORY)


def _made(place: Path, network: str | None, design: str | None) -> Lab:
    """The lab in this place, made now if a network is named and nothing is there."""
    from keyhop.emulator import lab as labs
    from keyhop.emulator import network as networks

    if (place / labs.LAB_FILE).exists():
        found = _told(lambda: labs.open_lab(place))
        if design is not None:
            fail(
                f"{place} holds a lab, whose nodes have a design already",
                "",
                "start it without --design, or make another one: --dir DIRECTORY",
                ExitCode.REFUSED,
            )
        if network is not None and (name := _plan(network).name) != found.state.name:
            what = f"{place} holds the lab {found.state.name}, not {name}"
            fail(what, "", f"give another place: keyhop lab up {network} --dir DIRECTORY", ExitCode.REFUSED)
        return found
    if network is None:
        fail(
            f"{place} holds no lab", "", "name a network: keyhop lab up secoqc, or: keyhop lab up FILE",
            ExitCode.NO_SUCH_THING,
        )  # fmt: skip
    plan = _plan(network)
    if design is not None:
        plan = dataclasses.replace(plan, design=_hostable(design))
    return _told(lambda: networks.create(plan, place))


def _hostable(name: str) -> str:
    from keyhop.core.designs import not_hosted

    reason = not_hosted(known.design(name))
    if reason:
        fail(reason, "", "see which run on nodes: keyhop design list", ExitCode.REFUSED)
    return name


def _plan(network: str) -> Plan:
    from keyhop.emulator import devices
    from keyhop.files import FileError
    from keyhop.simulator.topology import TopologyError, load_named

    try:
        topology = load_named(network)
    except TopologyError as error:
        fail(str(error), "", "name one of these, or a topology file", ExitCode.NO_SUCH_THING)
    except FileError as error:
        output.refuse_file(error, f"correct it, then: keyhop config validate {network}")
    return _told(lambda: devices.plan(topology))


def _here() -> Lab:
    from keyhop.emulator import lab as labs

    place = settings().lab or labs.find_lab(Path.cwd())
    if place is None:
        what = f"no lab here ({Path.cwd()})"
        fail(what, "", "go to its directory, give --lab DIRECTORY, or: keyhop lab up secoqc", ExitCode.NO_SUCH_THING)
    return node_api.open_lab(place)


def _told(work: Callable[[], ResultT]) -> ResultT:
    """What the lab's rooms refuse, as a command says it."""
    from keyhop.daemon.pki import PkiError
    from keyhop.emulator.lab import LabError
    from keyhop.emulator.processes import NodeFailure

    try:
        return work()
    except (LabError, PkiError) as error:
        fail(error.what, "", error.next_step, ExitCode.REFUSED)
    except NodeFailure as error:
        fail(str(error), "", "correct what it says, then: keyhop lab up", ExitCode.REFUSED)


def _act(link: str, change: Callable[[Path, str], Control]) -> None:
    from keyhop.emulator.control import ControlError

    found = _here()
    name = _link_id(found, link)
    try:
        state = _told(lambda: change(found.directory, name))
    except ControlError as error:
        fail(str(error), "", "see: keyhop lab inspect", ExitCode.REFUSED)
    answer = {
        "apiVersion": output.API_VERSION,
        "link": name,
        "cut": state.latest.cut,
        "eve_fraction": state.latest.eve_fraction,
    }
    output.emit(answer, lambda: f"{name}: {_done_to(state) or 'whole, nobody listens'}")
    if not found.running:
        output.say(f"Lab {found.state.name} is down, and links start untouched: keyhop lab up")


def _link_id(found: Lab, named: str) -> str:
    """By its id, or by its two ends in any order where only one link joins them."""
    by_ends = [link.id for link in found.state.links if named in ("-".join(link.ends), "-".join(reversed(link.ends)))]
    if any(link.id == named for link in found.state.links):
        return named
    if len(by_ends) == 1:
        return by_ends[0]
    if by_ends:
        fail(f"{len(by_ends)} links join {named}", "", f"name one: {', '.join(by_ends)}", ExitCode.USAGE)
    known = ", ".join(link.id for link in found.state.links) or "it has none"
    fail(f"lab {found.state.name} has no link {named}", "", f"its links: {known}", ExitCode.NO_SUCH_THING)


def _done_to(state: Control) -> str:
    latest = state.latest
    parts = ["cut" if latest.cut else "", f"eve {latest.eve_fraction:.0%}" if latest.eve_fraction else ""]
    parts += [f"{fault.name} at block {fault.number}" for fault in state.faults]
    return ", ".join(part for part in parts if part)


def _show(found: Lab) -> None:
    from keyhop.emulator import control, inspection

    views = inspection.look(found)
    seen = inspection.links_seen(views)
    controls = {link.id: control.read(found.directory, link.id) for link in found.state.links}
    answer = {
        "apiVersion": output.API_VERSION,
        "name": found.state.name,
        "title": found.state.title,
        "directory": str(found.directory),
        "running": found.running,
        "nodes": [_node_answer(found, view) for view in views],
        "links": [
            {
                "id": link.id,
                "ends": link.ends,
                "protocol": link.protocol,
                "length_km": link.length_km,
                "rate_bps": link.rate_bps,
                "block_period_s": link.block_period_s,
                "prefill_bytes": link.prefill_bytes,
                "cut": controls[link.id].latest.cut,
                "eve_fraction": controls[link.id].latest.eve_fraction,
                "faults": controls[link.id].faults,
                "seen": seen.get(link.id),
            }
            for link in found.state.links
        ],
    }
    output.emit(answer, lambda: f"{_node_table(views)}\n\n{_link_table(found, seen, controls)}")
    dead = [view for view in views if view.state == "dead"]
    if dead:
        # Nodes of one process have one log.
        first = {view.node.process: view for view in reversed(dead)}
        told = [view.reason if first[view.node.process] is view else view.reason.partition("\n")[0] for view in dead]
        output.say("\n".join(told))
        output.say(f"{len(dead)} of {len(views)} nodes died: keyhop lab down, then keyhop lab up")
        click.get_current_context().exit(ExitCode.PROBLEMS)


def _node_answer(found: Lab, view: NodeView) -> dict[str, Any]:
    return {
        "id": view.node.id,
        "state": view.state,
        "reason": view.reason,
        "pid": view.node.process.pid if view.node.process else None,
        "etsi014": view.node.etsi014,
        "manage": view.node.manage,
        "applications": view.node.applications,
        "config": str(found.config(view.node.id)),
        "log": str(found.log(view.node.id)),
    }


def _node_table(views: list[NodeView]) -> str:
    rows = [
        (
            view.node.id,
            view.state,
            view.node.etsi014,
            view.node.manage,
            str(view.node.process.pid) if view.node.process else figures.UNKNOWN,
            ", ".join(view.node.applications),
            view.reason.partition("\n")[0] if view.state == "starting" else "",
        )
        for view in views
    ]
    return output.table(("node", "state", "etsi014", "manage", "pid", "applications", ""), rows, "no nodes")


def _link_table(found: Lab, seen: dict[str, Link], controls: dict[str, Control]) -> str:
    rows = []
    for link in found.state.links:
        now = seen.get(link.id)
        rows.append(
            (
                link.id,
                now.state.value if now else figures.UNKNOWN,
                link.protocol,
                figures.UNKNOWN if link.length_km is None else f"{link.length_km:g} km",
                figures.rate(link.rate_bps),
                figures.percent(now.qber if now else None),
                figures.rate(now.skr_bps if now else None),
                figures.fill(now.stored_bytes, now.capacity_bytes) if now else figures.UNKNOWN,
                figures.size(link.prefill_bytes),
                _done_to(controls[link.id]),
            )
        )
    heads = ("link", "state", "protocol", "length", "rate", "qber", "skr", "pool", "prefill", "")
    return output.table(heads, rows, "no links")


def _drawn_lab(found: Lab) -> tuple[list[Any], list[Any]]:
    from keyhop.emulator import inspection
    from keyhop.emulator.graph import GraphLink, GraphNode

    views = inspection.look(found)
    seen = inspection.links_seen(views)
    running = found.running
    nodes = [
        GraphNode(v.node.id, v.node.label, v.node.applications, v.node.at, v.state if running else "") for v in views
    ]
    links = [
        GraphLink(
            link.id,
            link.ends,
            _link_note(link.length_km, link.rate_bps),
            seen[link.id].state if link.id in seen else "",
        )
        for link in found.state.links
    ]
    return nodes, links


def _drawn_plan(plan: Plan) -> tuple[list[Any], list[Any]]:
    from keyhop.emulator.graph import GraphLink, GraphNode

    nodes = [GraphNode(node.id, node.label, node.applications, node.at) for node in plan.nodes]
    links = [
        GraphLink(link.id, link.ends, _link_note(link.length_km, link.block_bytes * 8 / link.block_period_s))
        for link in plan.links
    ]
    return nodes, links


def _link_note(length_km: float | None, rate_bps: float) -> str:
    length = "" if length_km is None else f"{length_km:g} km" if length_km >= 1 else f"{length_km * 1000:.0f} m"
    return " · ".join(part for part in (length, figures.rate(rate_bps)) if part)
