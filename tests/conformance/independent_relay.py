"""The second implementation as a trusted node that relays to a far one, which it plays, too (protocol.md 11 to 13)."""

import hmac
import os
import struct

from cryptography.hazmat.primitives.poly1305 import Poly1305
from independent_peer import (
    ANSWER_FLOW,
    ANSWER_RESERVE,
    BOOK_FLOW,
    BURNT,
    CONFIRM,
    END_FLOW,
    FORWARD,
    HELLO,
    PAD,
    PLAIN,
    RELAY_BATCH,
    RESERVE,
    SUPPLY,
    Peer,
    Run,
    frame,
    len4,
    pack,
    require,
    unpack,
)

SEGMENT_BYTES = 1024


def xor(left: bytes, right: bytes) -> bytes:
    return bytes(a ^ b for a, b in zip(left, right, strict=True))


def confirmation(
    bits: bytes,
    key_at: int,
    number: int,
    placements: list,
    path: list[str],
    segment: int = SEGMENT_BYTES,
    labels: bytes = b"",
    lent: bool = False,
) -> bytes:
    context = pack([placements, segment, number.to_bytes(8, "big"), path, lent]) + labels
    return Poly1305.generate_tag(bits[key_at : key_at + 32], len4(context) + bits[64:])


class Middle(Peer):
    """`self.name` stands between the node and `far`; the hop to `far` is inside this object."""

    def __init__(self, name: str, other: str, link: bytes, secret: bytes, far: str) -> None:
        super().__init__(name, other, link, secret)
        self.far = Peer(far, other, bytes(16), b"")
        self.sending: dict[int, tuple[bytes, list, list[str], bool]] = {}
        """Batches of `far` on their way: bits, placements, path, whether they come leased."""
        self.taken: list[int] = []
        """Numbers of the node's batches that `far` took in."""
        self.taken_leased: list[tuple[int, int]] = []
        """Key of them that came leased for supply."""
        self.confirmed: list[int] = []
        self.blocks_told: list[list] = []
        """What the node said of the blocks behind its batches."""
        self.number = 0
        self.kills = False
        """Whether batches of the node die here, on their way."""
        self.flow_limit_bps = 1 << 40
        """What our hop to the far node can still promise."""
        self.flows: dict[int, tuple[list[str], int, int]] = {}
        """Guaranteed flows of the node: path, bit/s, bits at once."""
        self.flow_answers: dict[int, list] = {}
        """Of flows of the far node that this one asked for."""
        self.tunnel = 0
        self.out: list[list] = []
        self.handlers = {**Peer.handlers, RELAY_BATCH: Middle.on_batch}

    def introduce(self, *applications: str) -> None:
        """Link state of both: the node can reach `far` through us."""
        links = [[self.other, 1 << 20, 1_000_000, True], [self.far.name, 1 << 20, 1_000_000, True]]
        self.out.append(self.link_state(links))
        self.out.append(self.far.link_state([[self.name, 1 << 20, 1_000_000, True]], applications))

    def flush(self) -> bytes:
        if self.proved and not self.far.closed:
            self.forward(self.far.flush())
        out, self.out = (self.out, []) if self.proved else ([], self.out)
        return super().flush() + b"".join(frame(PLAIN, 0, pack([[message]])) for message in out)

    def on_plain(self, payload: bytes) -> bytes:
        (messages,) = unpack(payload)
        for kind, *rest in messages:
            if kind == FORWARD:
                self.on_forward(*rest)
            elif kind == RESERVE:
                number, path, _ = rest
                require(path == [self.other, self.name, self.far.name], "a path along us")
                self.out.append([ANSWER_RESERVE, number, path, True, "", ""])
            elif kind == ANSWER_RESERVE and rest[2]:
                self.send_batch(rest[0])
            elif kind == CONFIRM:
                self.on_confirm(*rest)
            elif kind == BOOK_FLOW:
                self.on_book_flow(*rest)
            elif kind == ANSWER_FLOW:
                self.flow_answers[rest[0]] = rest[2:]
            elif kind == END_FLOW:
                self.flows.pop(rest[0], None)
        return super().on_plain(payload)

    # --- frames of the distant pair -------------------------------------------------------------------------------

    def forward(self, data: bytes) -> None:
        while data:
            length, kind, position, tag_length = struct.unpack(">IBQB", data[:14])
            tag, payload = data[14 : 14 + tag_length], data[14 + tag_length : 4 + length]
            ends = [self.far.name, self.other]
            self.out.append([FORWARD, *ends, 32, self.tunnel, kind, position, payload, tag])
            data = data[4 + length :]

    def open_far(self) -> None:
        self.tunnel = int.from_bytes(os.urandom(7), "big")
        self.forward(self.far.connect())

    def on_forward(self, source, destination, hops, connection, kind, position, payload, tag) -> None:  # type: ignore[no-untyped-def]
        require((source, destination) == (self.other, self.far.name) and hops <= 128, "a frame for the far node")
        if kind == HELLO and self.far.name > self.other:
            self.tunnel = connection
            self.forward(self.far.connect())
        if connection == self.tunnel and kind:
            self.forward(self.far.receive(frame(kind, position, payload, tag)))

    # --- guaranteed flows -----------------------------------------------------------------------------------------

    def on_book_flow(self, number: int, path: list[str], rate_bps: int, burst_bits: int, lifetime_ms: int) -> None:
        """We book it on the hop to the far node, which answers; the whole of the way back is inside this object."""
        require(path == [self.other, self.name, self.far.name], "a path along us")
        require(
            0 < rate_bps <= 1 << 40 and 0 < burst_bits <= 1 << 40 and 0 < lifetime_ms <= 60_000, "numbers of a flow"
        )
        known = self.flows.get(number)
        free = self.flow_limit_bps - sum(rate for _, rate, _ in self.flows.values())
        if known == (path, rate_bps, burst_bits) or (known is None and rate_bps <= free):
            self.flows[number] = path, rate_bps, burst_bits
            self.out.append([ANSWER_FLOW, number, path, True, "", "", 0, 0])
        else:
            self.flows.pop(number, None)
            self.out.append([ANSWER_FLOW, number, path, False, self.name, f"{free} bit/s are left", free, burst_bits])

    def book_flow(self, number: int, rate_bps: int, burst_bits: int = 20_000) -> None:
        """A flow of the far node to this one."""
        path = [self.far.name, self.name, self.other]
        self.out.append([BOOK_FLOW, number, path, rate_bps, burst_bits, 30_000])

    # --- batches --------------------------------------------------------------------------------------------------

    def relay(self, opening: int, tags: int, key: int, *, lent: bool = False) -> int:
        """A batch of the far node begins: bytes for its own runs of the distant pair."""
        self.number += 1
        path = [self.far.name, self.name, self.other]
        placements = []
        runs = (self.far.own_opening, self.far.own_tags, self.far.own_key)
        for run, length in zip(runs, (opening, tags, key), strict=True):
            if length:
                placements.append([self.far.runs.index(run), run.append, length])
                run.reach(run.append + length)
        bits = os.urandom(64 + opening + tags + key)
        self.sending[self.number] = (bits, placements, path, lent)
        self.out.append([RESERVE, self.number, path, len(bits)])
        return self.number

    def send_batch(self, number: int) -> None:
        bits, placements, path, lent = self.sending[number]
        told = confirmation(bits, 0, number, placements, path, lent=lent)
        manifest = pack([placements, SEGMENT_BYTES, told, path, lent])
        self.outbox.append(self.batch(number, bits, manifest))

    def batch(self, number: int, bits: bytes, manifest: bytes) -> list:
        """Under pads of ours, each byte of them once."""
        pads, pad, missing = [], b"", len(bits)
        while missing:
            start, length = self.stock[PAD].pop(0)
            used = min(length, missing)
            if used < length:
                self.stock[PAD].insert(0, (start + used, length - used))
            pads.append([start, used])
            pad += bytes(self.own_key.bits[start : start + used])
            self.own_key.set(BURNT, start, used)
            missing -= used
        labels = self.labels_of(len(bits))
        return [RELAY_BATCH, self.far.name, self.other, number, pads, len(bits), xor(bits, pad), manifest, labels]

    def labels_of(self, length: int) -> bytes:
        """Of a batch of the far node: its own link's block, and the one that our pads are of."""
        ours = ["-".join(sorted((self.name, self.other))), 0, 1e-11, "acme"]
        theirs = ["-".join(sorted((self.name, self.far.name))), 3, 1e-10, "other"]
        return pack([[length, 1500, sorted([ours, theirs]), []]])

    def on_confirm(self, number: int, path: list[str], fingerprint: bytes, labels: bytes) -> None:
        bits, placements, own_path, lent = self.sending.pop(number)
        require(path == own_path, "a confirmation along our path")
        expected = confirmation(bits, 32, number, placements, path, labels=labels, lent=lent)
        if fingerprint and hmac.compare_digest(fingerprint, expected):
            require(labels == self.labels_of(len(bits)), "the labels that we sent")
            self.far.store(bits[64:], placements, SEGMENT_BYTES)
            if lent:
                leased = self.leased(self.far.own_key, placements)
                self.far.stock[SUPPLY] += leased
            self.confirmed.append(number)

    def leased(self, run: Run, placements: list) -> list[tuple[int, int]]:
        """The key of a batch that came leased for supply."""
        spans = [(start, length) for number, start, length in placements if self.far.runs[number] is run]
        for span in spans:
            run.set(SUPPLY, *span)
        return spans

    def on_batch(self, source, destination, number, pads, length, ciphertext, manifest, labels) -> None:  # type: ignore[no-untyped-def]
        """The node's own batch: its first hop is to us, so the pads are the payload."""
        run = self.their_key
        require(source == self.other and destination == self.far.name and not ciphertext, "the first hop of a batch")
        require(sum(n for _, n in pads) == length and all(run.is_all(PAD, *pad) for pad in pads), "pads")
        bits = b"".join(bytes(run.bits[start : start + n]) for start, n in pads)
        for pad in pads:
            run.set(BURNT, *pad)
        placements, segment, fingerprint, path, lent = unpack(manifest)
        if self.kills:
            self.out.append([CONFIRM, number, path, b"", b""])
            return
        told = unpack(labels)
        require(sum(piece[0] for piece in told) == length, "labels of all bytes")
        self.blocks_told += [term for piece in told for term in piece[2]]
        # What our own pads on the hop to the far node add.
        hop = ["-".join(sorted((self.name, self.far.name))), 3, 1e-10, "other"]
        labels = pack([[piece[0], piece[1], sorted([*piece[2], hop]), piece[3]] for piece in told])
        theirs = (self.far.their_key, self.far.their_opening, self.far.their_tags)
        fits = all(self.far.runs[n] in theirs and start >= self.far.runs[n].append for n, start, _ in placements)
        require(fits, "placements in the source's own runs")
        require(segment in (1 << exponent for exponent in range(10, 17)), "a size of segments")
        answer = b""
        if hmac.compare_digest(fingerprint, confirmation(bits, 0, number, placements, path, segment, lent=lent)):
            self.far.store(bits[64:], placements, segment)
            if lent:
                self.taken_leased += self.leased(self.far.their_key, placements)
            self.taken.append(number)
            answer = confirmation(bits, 32, number, placements, path, segment, labels, lent)
        self.out.append([CONFIRM, number, path, answer, labels])
