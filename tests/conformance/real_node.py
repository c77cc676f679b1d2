"""A real node on a line of bytes to whatever speaks the protocol, with a watch that no byte serves twice."""

import os

from independent_identity import AUTHORITY, signer

from keyhop.core.designs import DESIGNS
from keyhop.core.machine import Close, Deliver, Output, Send
from keyhop.core.machine import Frame as CoreFrame
from keyhop.core.model import NANOSECONDS, AppId, NodeId, Range, RunId
from keyhop.core.node import events
from keyhop.core.node.context import Application, Neighbour, NodeSettings
from keyhop.core.node.extents import Extents
from keyhop.core.node.node import Node
from keyhop.core.node.recovery import FIRST_CONTACT, FIRST_CONTACT_BYTES
from keyhop.core.node.vault import BlockName
from keyhop.core.policy_rules import Policy
from keyhop.daemon.identity import Identities
from keyhop.daemon.peers import KME_URI_PREFIX
from keyhop.daemon.signing import NodeIdentity
from keyhop.daemon.vault import NodeVault
from keyhop.simulator.disk import PretendDisk
from keyhop.wire.frames import FrameDecoder, FrameError, encode

LINK = bytes(range(16))
SEGMENT_BYTES = 1024


class UsedTwice(Exception):
    pass


class WatchedVault(NodeVault):
    """Notes every byte that serves as a tag key, a pad, a key-ID secret or an application's key."""

    def watch(self, used: dict[RunId, Extents]) -> None:
        self.used = used

    def use(self, range: Range) -> None:
        extents = self.used.setdefault(range.run, Extents())
        if extents.touches(range.start, range.end):
            raise UsedTwice(str(range))
        extents.add(range.start, range.end)

    def tag(self, key: Range, message: bytes) -> bytes:
        self.use(key)
        return super().tag(key, message)

    def verify(self, key: Range, message: bytes, tag: bytes) -> bool:
        self.use(key)
        return super().verify(key, message, tag)

    def fingerprint(self, blocks: tuple[BlockName, ...], key: Range, context: bytes) -> bytes:
        # `matches` comes here, too.
        self.use(key)
        return super().fingerprint(blocks, key, context)

    def keep_secret(self, name: str, source: Range) -> None:
        self.use(source)
        super().keep_secret(name, source)

    def cipher(self, block: BlockName, pads: tuple[Range, ...]) -> bytes:  # type: ignore[override]
        for pad in pads:
            self.use(pad)
        return super().cipher(block, pads)  # type: ignore[arg-type]

    def decipher(self, block: BlockName, ciphertext: bytes, pads: tuple[Range, ...]) -> None:  # type: ignore[override]
        for pad in pads:
            self.use(pad)
        super().decipher(block, ciphertext, pads)  # type: ignore[arg-type]

    def gather(self, block: BlockName, sources: tuple[Range, ...]) -> None:
        for source in sources:
            self.use(source)
        super().gather(block, sources)


class Line:
    """The node `name`, its neighbour `other` at the end of a stream. Time stands still unless `pass_time` moves it."""

    def __init__(self, name: str, other: str, secret: bytes, policy: Policy | None = None) -> None:
        self.name, self.other = name, other
        self.settings = NodeSettings(
            node=NodeId(name),
            neighbours=(Neighbour(node=NodeId(other), link=LINK, segment_bytes=SEGMENT_BYTES),),
            applications=(Application(id=AppId("here"), peers=frozenset([AppId("there"), AppId("distant")])),),
            directory={AppId("there"): NodeId(other)},
            policy=policy,
        )
        self.used: dict[RunId, Extents] = {}
        self.disk = PretendDisk()
        self.now = NANOSECONDS
        self.start_number = 0
        self.connection = 0
        self.answers: dict[int, tuple[Deliver, tuple[bytes, ...]]] = {}
        self.notices: list[str] = []
        self.begin()
        self.vault.accept(BlockName(NodeId(other), FIRST_CONTACT, 0), bytearray(secret))
        self.step(events.SecretLoaded(other, LINK, FIRST_CONTACT_BYTES))

    def begin(self) -> None:
        """The process starts, from what is on disk."""
        self.start_number += 1
        snapshot = self.disk.load()
        own = signer(self.name)
        identity = NodeIdentity(
            own.key, own.certificate, [AUTHORITY.certificate], Identities(uri_prefix=KME_URI_PREFIX)
        )
        vouch_key = b"vouch key of one node, 32 bytes."
        self.vault = WatchedVault(self.disk, vouch_key, identity=identity)  # type: ignore[arg-type]
        self.vault.watch(self.used)
        self.vault.recall_secrets(snapshot.secrets)
        self.out: list[bytes] = []
        self.closed = True
        self.node = Node(
            self.settings, DESIGNS["keyhop"], self.vault, os.urandom, snapshot, start=self.start_number, now=self.now
        )
        self.perform(self.node.begin())

    @property
    def pair(self):  # type: ignore[no-untyped-def]
        return self.node.context.pairs[NodeId(self.other)]

    def connect(self) -> bytes:
        self.connection += 1
        self.closed = False
        self.out = []
        self.decoder = FrameDecoder()
        self.step(events.PeerConnected(self.other, self.connection))
        return self.take()

    def receive(self, data: bytes) -> bytes:
        """What the node says to these bytes; nothing more once it has closed the connection."""
        if self.closed:
            return b""
        try:
            frames = self.decoder.feed(data)
        except FrameError:
            self.hang_up()
            return b""
        for frame in frames:
            self.step(events.FrameArrived(self.other, self.connection, CoreFrame(*frame)))
        return self.take()

    def hang_up(self) -> None:
        self.closed = True
        self.step(events.PeerLost(self.other, self.connection))

    def take(self) -> bytes:
        taken, self.out = b"".join(self.out), []
        return taken

    def pass_time(self, seconds: float) -> bytes:
        end = self.now + int(seconds * NANOSECONDS)
        while self.now < end:
            self.now += NANOSECONDS // 4
            self.step(events.Woke())
        return self.take()

    def deliver(self, module: str, number: int, bits: bytes) -> bytes:
        self.vault.accept(BlockName(NodeId(self.other), module, number), bytearray(bits))
        self.step(events.BlockArrived(self.other, module, number, len(bits)))
        return self.take()

    def want_keys(self, request: int, number: int = 1, size_bits: int = 256) -> bytes:
        self.step(events.KeysWanted(request, "here", "there", number, size_bits))
        return self.take()

    def fetch(self, request: int, *keys: tuple[int, int, int]) -> None:
        coordinates = tuple(events.Coordinates(*key) for key in keys)
        self.step(events.KeysFetched(self.other, [events.Fetch(request, coordinates)]))

    def step(self, event: object) -> None:
        self.perform(self.node.step(event, self.now))

    def perform(self, output: Output) -> None:
        """One commit, at once; then what follows from it."""
        self.node.complete(output)
        answers = [(deliver, tuple(self.vault.read(range) for range in deliver.ranges)) for deliver in output.answer]
        if output.save:
            bits = self.vault.collect(output.save)
            self.disk.commit(output.save, lambda range: bytes(bits(range)))
            self.vault.committed(output.save)
        self.notices += [notice.text for notice in output.notice]
        for sending in output.send:
            if sending.connection != self.connection or self.closed:
                continue
            if isinstance(sending, Send):
                frame = sending.frame
                self.out.append(encode(frame.type, frame.position, frame.payload, frame.tag))
            elif isinstance(sending, Close):
                self.closed = True
        for deliver, bits_given in answers:
            for range in deliver.ranges:
                self.vault.use(range)
            self.answers[deliver.request] = (deliver, bits_given)
        for range in output.wipe:
            self.vault.wipe(range)
        for event in output.after:
            self.step(event)
