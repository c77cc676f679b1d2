"""`keyhop demo`: a whole network on this machine, live in the terminal."""

from __future__ import annotations

import asyncio
import shutil
import sys
import tempfile
from pathlib import Path

import click

from keyhop.cli import known
from keyhop.cli.output import ExitCode, fail, refuse_file, say
from keyhop.cli.settings import FILE

DIRECTORY = Path("keyhop-demo")
WARNING = "This is an emulation with keys from your operating system's generator. Do not protect real data with it."


@click.command(epilog="Example:  keyhop demo            (then: e = eavesdrop, c = cut, q = quit)")
@click.argument("network", default="secoqc", shell_complete=known.networks)
@click.option("--once", is_flag=True, help="Deliver ten keys end to end, compare both ends, and end: exit 0 or 1.")
@click.option("--one-process", is_flag=True, help="All nodes in one process: saves memory; they end together.")
@click.option("--no-tui", is_flag=True, help="Print a line now and then instead of the live view.")
@click.option("--dir", "directory", type=FILE, help="Where the network lives (default ./keyhop-demo).")
def demo(network: str, once: bool, one_process: bool, no_tui: bool, directory: Path | None) -> None:
    """Run a QKD network on this machine: real nodes, emulated QKD, two pairs of applications.

    NETWORK is a built-in network (secoqc, line3, ring, ...) or a topology file.
    """
    import signal

    # A shell that runs us in the background has it ignored; asked to end, we end all the same.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    from keyhop.daemon.pki import PkiError
    from keyhop.emulator import demo as demos
    from keyhop.emulator.lab import LAB_FILE, LabError, open_lab
    from keyhop.emulator.processes import NodeFailure

    topology = _topology(network)
    temporary = None
    try:
        if directory is None and once:
            temporary = Path(tempfile.mkdtemp(prefix="keyhop-demo-"))
            directory = temporary / "demo"
        elif directory is None:
            directory = DIRECTORY
            if (directory / LAB_FILE).exists():
                if open_lab(directory).running:
                    next_step = f"end it with q, or: keyhop lab down --lab {directory}"
                    fail(f"a demo runs already in {directory}", "", next_step, ExitCode.FAILED)
                shutil.rmtree(directory)
        running = demos.prepare(topology, directory)
        title = topology.title or topology.name
        say(f"Keyhop demo · {title} · emulated QKD, real key managers, everything on 127.0.0.1")
        applications = sum(len(node.applications) for node in running.lab.state.nodes)
        nodes = len(running.lab.state.nodes)
        say(f"  pki        2 authorities, {nodes} KMEs, {applications} applications        {directory / 'pki'}")
        try:
            demos.start(running, lambda node: None, one_process=one_process)
            say(f"  nodes      {nodes} of {nodes} ready                                {running.ready_s:.1f} s")
            if once:
                sys.exit(_once(running))
            _live(running, directory, plain=no_tui or not sys.stdout.isatty())
        finally:
            demos.stop(running)
    except (LabError, PkiError) as error:
        fail(error.what, "", error.next_step, ExitCode.FAILED)
    except NodeFailure as error:
        fail(str(error), "", f"its log is in {directory}; see also: keyhop lab inspect", ExitCode.FAILED)
    finally:
        if temporary is not None:
            shutil.rmtree(temporary, ignore_errors=True)


def _topology(network: str):  # type: ignore[no-untyped-def]
    from keyhop.files import FileError
    from keyhop.simulator import topology

    try:
        return topology.load_named(network)
    except FileError as error:
        refuse_file(error, f"correct it, then: keyhop config validate {network}")
    except topology.TopologyError as error:
        fail(str(error), "", "name one of these, or a topology file", ExitCode.NO_SUCH_THING)


def _once(running) -> int:  # type: ignore[no-untyped-def]
    from keyhop import KeyhopError
    from keyhop.emulator import demo as demos

    try:
        outcome = asyncio.run(demos.once(running))
    except KeyhopError as error:
        say(f"error: no key end to end: {error}")
        return int(ExitCode.FAILED)
    failed = False
    for conversation, equal, seconds in outcome:
        path = "─".join(conversation.path)
        wrong = equal != conversation.keys
        failed = failed or wrong
        word = "DIFFERENT" if wrong else "equal at both ends"
        click.echo(
            f"{conversation.name}: {conversation.master} → {conversation.slave}: {equal} of {conversation.keys} keys "
            f"{word}, {seconds:.1f} s, {path}"
        )
    return int(ExitCode.FAILED if failed else ExitCode.DONE)


def _live(running, directory: Path, *, plain: bool) -> None:  # type: ignore[no-untyped-def]
    from keyhop.cli.live import live

    lab = running.lab
    first, last = running.conversations[0].master, running.conversations[0].slave
    issued, authority = lab.credentials(first)
    say(f"  KMEs       https://{lab.serving(first).etsi014} ({first}), and {len(lab.state.nodes) - 1} more")
    say(f"  Stop       q, or Ctrl-C (everything in {directory} can be deleted)")
    say(f"  {WARNING}")
    asyncio.run(live(running, plain=plain))
    say(f"To ask a node yourself, start the network again: keyhop lab up --dir {directory}; then:")
    say(
        f"  curl --cacert {authority} --cert {issued.certificate} --key {issued.key} "
        f"https://{lab.serving(first).etsi014}/api/v1/keys/{last}/enc_keys"
    )
