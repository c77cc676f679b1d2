"""A pretend network that takes commands in words and writes down what its nodes say, save and answer.

The nodes are real; every delay is fixed and every draw comes from one seed, so a text is the same each time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
import said

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Close, Deliver, Frame, Put, Save
from keyhop.core.model import NANOSECONDS, AppId, NodeId, Range
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.recovery import FIRST_CONTACT, FIRST_CONTACT_BYTES
from keyhop.core.node.rows import NodeRow
from keyhop.core.node.vault import BlockName
from keyhop.crypto.keyid import Coordinates
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import Image, PretendDisk
from keyhop.simulator.world import MILLISECOND, Answered, Process, Timing, World

TIMING = Timing(
    delay=(MILLISECOND, MILLISECOND),
    commit=(MILLISECOND, MILLISECOND),
    redial=(100 * MILLISECOND, 100 * MILLISECOND),
)
RESTART_NS = 200 * MILLISECOND
SETTLE_NS = 50 * MILLISECOND
"""How long a command is listened to, unless it says."""
HIDDEN = frozenset({"KeepAlive", "SignedLinkState"})
"""What is said all the time; `show` brings it back."""
MODULE = "qkd"
UNITS = {"ms": MILLISECOND, "s": NANOSECONDS}


class Misread(Exception):
    """A command that is not one."""


class NamedKey:
    """A key that an application was given."""

    def __init__(self, owner: str, deliver: Deliver, index: int, bits: bytes) -> None:
        self.owner = owner
        self.range = deliver.ranges[index]
        self.id = deliver.ids[index] if deliver.ids else None
        self.bits = bits

    def __repr__(self) -> str:
        return f"NamedKey({self.owner} {self.range})"


class LoggedDisk(PretendDisk):
    def __init__(self, committed: Callable[[Sequence[Save]], None]) -> None:
        super().__init__()
        self._committed = committed

    def commit(self, saves: Sequence[Save], bits: Callable[[Range], Any]) -> None:
        super().commit(saves, bits)
        self._committed(saves)


class Conversation:
    """`run(command)` gives the lines that it brought about. Applications `a1`, `a2` are at node `a`, and so on."""

    def __init__(self) -> None:
        self.world: World | None = None
        self.lines: list[str] = []
        self.hidden = set(HIDDEN)
        self.keys: dict[str, NamedKey] = {}
        self.asked: dict[int, tuple[str, ...]] = {}
        self.copies: dict[str, Image] = {}
        self.faults: list[tuple[str, str, str, str]] = []
        """(what, sender, receiver, message) that are to come, each once."""
        self.began = 0
        self.speaker = ""

    def run(self, command: str) -> str:
        name, *words = command.split()
        call = getattr(self, f"_{name}", None)
        if call is None or name not in COMMANDS:
            raise Misread(f"{name!r} is no command: {', '.join(sorted(COMMANDS))} are")
        self.lines = []
        self.speaker = ""
        if self.world is not None:
            self.began = self.world.now
        call(*words)
        return "\n".join(self.lines) or "ok"

    @property
    def there(self) -> World:
        if self.world is None:
            raise Misread("a conversation begins with `network`")
        return self.world

    def process(self, node: str) -> Process:
        try:
            return self.there.processes[NodeId(node)]
        except KeyError:
            raise Misread(f"no node {node}: {' '.join(self.there.processes)} are there") from None

    def say(self, speaker: str, words: str) -> None:
        """One line; who goes on speaking at the same moment is not named again."""
        at = f"{(self.there.now - self.began) / NANOSECONDS:.3f}"
        head = f"{at} {speaker}"
        self.lines.append(f"{' ' * len(head) if head == self.speaker else head} {words}")
        self.speaker = head

    # --- the network --------------------------------------------------------------------------------------------------

    def _network(self, *words: str) -> None:
        """`network a-b b-c a1>c1 fetch=5s`: links, who may share keys with whom, settings."""
        links = [tuple(sorted(word.split("-"))) for word in words if "-" in word]
        shares = [word.split(">") for word in words if ">" in word]
        options = dict(word.split("=") for word in words if "=" in word)
        segment = int(options.pop("segment", 1024))
        other = options.pop("other", "")
        written = {AppId(app): NodeId(app[0]) for share in shares for app in share} if "directory" in options else {}
        options.pop("directory", "")
        limits: dict[str, Any] = {}
        for option, field in (("fetch", "fetch_lifetime_ns"), ("block", "block_lifetime_ns")):
            if option in options:
                limits[field] = span_ns(options.pop(option))
        if "stock" in options:
            limits["stock_limit_bytes"] = int(options.pop("stock"))
        if options:
            raise Misread(f"no settings {', '.join(options)}: segment, fetch, block, stock, other and directory are")
        settings = []
        for node in sorted({node for link in links for node in link}):
            peers = {
                f"{node}{i}": frozenset(AppId(slave) for master, slave in shares if master == f"{node}{i}")
                for i in (1, 2)
            }
            around = sorted(other for link in links if node in link for other in link if other != node)
            settings.append(
                NodeSettings(
                    node=NodeId(node),
                    neighbours=tuple(
                        Neighbour(
                            node=NodeId(peer),
                            link=link_number(node, "another" if node == other else peer),
                            segment_bytes=segment,
                        )
                        for peer in around
                    ),
                    directory={app: at for app, at in written.items() if at != node},
                    applications=tuple(Application(id=AppId(id), peers=some) for id, some in peers.items()),
                    **limits,
                )
            )
        world = self.world = World(1, settings, DESIGNS["keyhop"], NodeVault, TIMING)
        world.restart_after = (RESTART_NS, RESTART_NS)
        world.on_frame.append(self._framed)
        world.on_answer.append(self._answered)
        world.on_step.append(self._stepped)
        world.tamper = self._tamper
        for node, process in world.processes.items():
            process.disk = LoggedDisk(lambda saves, node=node: self._saved(node, saves))  # type: ignore[misc]
        self.began = world.now

    def _start(self, time: str = "") -> None:
        self.there.start()
        self._listen(time)

    def _open(self) -> None:
        """Starts all nodes and lets them open their links, without a word about it."""
        self.there.start()
        self._listen("1s")
        self.lines = [
            f"{node}-{pair.peer} is {'open' if pair.is_open else 'not open'}"
            for node, process in self.there.processes.items()
            for pair in process.node.context.pairs.values()
            if pair.leads
        ]

    def _run(self, time: str) -> None:
        self._listen(time)

    def _quietly(self, time: str) -> None:
        """As `run`, and nothing is written down but alarms and answers."""
        before, self.hidden = self.hidden, {"everything"}
        self._listen(time)
        self.hidden = before

    def _listen(self, time: str = "") -> None:
        self.there.run(self.there.now + (span_ns(time) if time else SETTLE_NS))

    def _hide(self, *names: str) -> None:
        self.hidden.update(names)

    def _show(self, *names: str) -> None:
        self.hidden.difference_update(names)

    def _look(self, *nodes: str) -> None:
        """The books and segments of the key runs between two nodes, at both ends."""
        for node, peer in (nodes, nodes[::-1]):
            self.lines += said.look(self.process(node).node.context.pairs[NodeId(peer)], node)

    # --- modules and applications -------------------------------------------------------------------------------------

    def _block(self, link: str, number: str, length: str, *options: str) -> None:
        """`block a-b 7 4096 only=a flip=b`: a module delivers at both ends, at one, or not the same."""
        ends = sorted(link.split("-"))
        chosen = dict(option.split("=") for option in options)
        bits = self.there.random.randbytes(int(length))
        for node, peer in (ends, ends[::-1]):
            if chosen.get("only", node) == node:
                here = bytes([bits[0] ^ 1]) + bits[1:] if chosen.get("flip") == node else bits
                self.there.deliver_block(node, peer, MODULE, int(number), here)
        self._listen(chosen.get("for", ""))

    def _stock(self, link: str, first: str, last: str, length: str) -> None:
        """Blocks `first` to `last`, as quietly."""
        before, self.hidden = self.hidden, {"everything"}
        for number in range(int(first), int(last) + 1):
            self._block(link, str(number), length)
        self.hidden = before

    def _secret(self, node: str, peer: str, other: str = "") -> None:
        """A first-contact file is loaded at a node: the link's own, or another one."""
        secret = bytearray(self.there.link_secret(node, peer))
        self.process(node).vault.accept(BlockName(NodeId(peer), FIRST_CONTACT, 0), secret)
        self.process(node).feed(
            events.SecretLoaded(peer, link_number(node, other or peer), FIRST_CONTACT_BYTES),
        )
        self._listen()

    def _ask(self, master: str, slave: str, number: str = "1", size_bits: str = "256", time: str = "") -> None:
        """enc_keys."""
        request = self.there.request()
        self.asked[request] = ("enc", master, slave)
        self.process(master[0]).feed(events.KeysWanted(request, master, slave, int(number), int(size_bits)))
        self._listen(time)

    def _fetch(self, slave: str, *names: str) -> None:
        """dec_keys: by name, or `a>b:4096+32` for what an ID that nobody was given would say."""
        request = self.there.request()
        self.asked[request] = ("dec", slave, *names)
        keys = [self.keys.get(name) for name in names]
        event: object
        if keys[0] is not None and keys[0].id is not None:
            ids = tuple(str(key.id) for key in keys if key is not None)
            event = events.RecordsFetched(request, slave, f"{keys[0].owner}1", ids)
        else:
            owner = keys[0].owner if keys[0] is not None else names[0][:3].replace(slave[0], "").strip(">")
            coordinates = tuple(self._coordinates(name) for name in names)
            event = events.KeysFetched(owner, [events.Fetch(request, coordinates)])
        self.process(slave[0]).feed(event)
        self._listen()

    def _coordinates(self, name: str) -> Coordinates:
        key = self.keys.get(name)
        if key is not None:
            return Coordinates(key.range.run.number, key.range.start, key.range.length)
        found = re.fullmatch(r"(\w)>(\w):(\d+)\+(\d+)", name)
        if found is None:
            raise Misread(f"no key {name}: {' '.join(self.keys)} were given")
        owner, follower, start, length = found.groups()
        return Coordinates(int(owner > follower), int(start), int(length))

    # --- faults -------------------------------------------------------------------------------------------------------

    def _cut(self, a: str, b: str, time: str = "") -> None:
        self.there.cut(a, b)
        self._listen(time)

    def _mend(self, a: str, b: str, time: str = "") -> None:
        self.there.mend(a, b)
        self._listen(time)

    def _crash(self, node: str, time: str = "") -> None:
        """It starts again after 200 ms."""
        self.there.crash(node)
        self._listen(time)

    def _copy(self, node: str) -> None:
        self.copies[node] = self.process(node).disk.keep_copy()

    def _restore(self, node: str, *options: str) -> None:
        """The node dies and goes on from its copy; `anchor`: what stands outside the store was put back, too."""
        self.there.crash(node, self.copies[node], anchor_too="anchor" in options)
        self._listen(next((option for option in options if option != "anchor"), ""))

    def _lose(self, sender: str, receiver: str, message: str) -> None:
        """The connection breaks while the next such message is on its way."""
        self.faults.append(("lost", sender, receiver, message))

    def _repeat(self, sender: str, receiver: str, message: str) -> None:
        self.faults.append(("repeated", sender, receiver, message))

    def _forge(self, sender: str, receiver: str, message: str) -> None:
        self.faults.append(("changed", sender, receiver, message))

    def _tamper(self, sender: str, receiver: str, frame: Frame) -> list[Frame]:
        names = {name for name, _ in said.frame(frame.type, frame.position, frame.payload, sender, receiver)}
        for fault in self.faults:
            what, a, b, message = fault
            if (a, b) == (sender, receiver) and message in names:
                self.faults.remove(fault)
                self.say(f"{sender} > {receiver}", f"(this frame is {what} on its way)")
                if what == "repeated":
                    return [frame, frame]
                if what == "changed":
                    return [msgspec.structs.replace(frame, tag=bytes([frame.tag[0] ^ 1]) + frame.tag[1:])]
                for wire in list(self.there.wires.values()):
                    if set(wire.ends) == {a, b}:
                        self.there.break_wire(wire)
                return []
        return [frame]

    # --- what happens -------------------------------------------------------------------------------------------------

    def _framed(self, sender: str, receiver: str, frame: Frame) -> None:
        if "everything" in self.hidden:
            return
        told = said.frame(frame.type, frame.position, frame.payload, sender, receiver)
        shown = [
            (name, words)
            for name, words in told
            if name not in self.hidden and not (name == "Forward" and words.endswith(tuple(self.hidden)))
        ]
        if len(told) > 1 and [name for name, _ in shown] == ["State"]:
            # The frame came for what is hidden.
            return
        for _, words in shown:
            self.say(f"{sender} > {receiver}", words)

    def _saved(self, node: str, saves: Sequence[Save]) -> None:
        if self.hidden.isdisjoint({"everything", "saves"}):
            journal = [save.row.journal for save in saves if type(save) is Put and isinstance(save.row, NodeRow)]
            self.say(f"{node} saves", f"{journal[-1]}: {said.commit(saves)}")

    def _stepped(self, process: Process) -> None:
        for notice in process.notices:
            self.say(process.name, f"{notice.code} {notice.text}")
        process.notices.clear()
        for sending in process.under_way[-1].send:
            if isinstance(sending, Close):
                self.say(process.name, f"closes the connection to {sending.peer}: {sending.reason}")

    def _answered(self, answer: Answered) -> None:
        kind, application, *rest = self.asked.pop(answer.request)
        refusal = answer.deliver.refusal
        if refusal is not None:
            self.say(answer.node, f"refuses {application}: {refusal.reason}, {refusal.message}")
        elif kind == "enc":
            names = [f"K{len(self.keys) + 1 + index}" for index in range(len(answer.bits))]
            for index, (name, bits) in enumerate(zip(names, answer.bits, strict=True)):
                self.keys[name] = NamedKey(answer.node, answer.deliver, index, bits)
            if len(names) > said.PIECES_TOLD:
                names = [names[0], "to", names[-1]]
            where = said.ranges(answer.deliver.ranges, answer.node) if not answer.deliver.ids else "drawn here"
            self.say(answer.node, f"gives {application} {' '.join(names)}: {where}")
        else:
            for name, bits in zip(rest, answer.bits, strict=True):
                if self.keys[name].bits != bits:
                    raise AssertionError(f"{name}: the two ends hold different bits")
            self.say(answer.node, f"gives {application} {' '.join(rest)}: the same bits")


COMMANDS = frozenset(
    {
        *("network", "start", "open", "run", "quietly", "hide", "show", "look"),
        *("block", "stock", "secret", "ask", "fetch"),
        *("cut", "mend", "crash", "copy", "restore", "lose", "repeat", "forge"),
    }
)


def link_number(one: str, other: str) -> bytes:
    return "".join(sorted((one, other))).ljust(16).encode()


def span_ns(text: str) -> int:
    """`200ms`, `5s`."""
    found = re.fullmatch(r"(\d+)(ms|s)", text)
    if found is None:
        raise Misread(f"{text!r} is no time: 200ms and 5s are")
    return int(found[1]) * UNITS[found[2]]
