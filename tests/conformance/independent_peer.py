"""A second, small key manager written from docs/protocol.md alone: no line of the program is used or looked at.

It holds its runs in memory, one flag per byte, and speaks bytes: `connect()` and `receive()` give what to send. It
plays fair; a test that wants it to cheat sends frames of its own making with `frame()` and `tagged()`.
"""

import hashlib
import hmac
import os
import re
import struct
import uuid
from collections import deque
from collections.abc import Callable

import msgspec
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.poly1305 import Poly1305
from independent_identity import signer

HELLO, GRANT, PROOF, STATE, PLAIN = range(1, 6)
AGREE, ANSWER_BLOCK, STORED, REQUEST, ANSWER_LEASE, STATEMENT, NAME_SECRET, RELAY_BATCH = 1, 2, 8, 3, 4, 5, 6, 7
EXPIRE = 12
DESIGN, OFFER, ANSWER_OFFER = 9, 10, 11
KEEP_ALIVE, LINK_STATE, FORWARD, RESERVE, ANSWER_RESERVE, CONFIRM, BOOK_FLOW, ANSWER_FLOW, END_FLOW = range(20, 29)
EVERYWHERE = 255
"""Hops left of link state that goes to all nodes."""
ABSENT, UNTOUCHED, SUPPLY, PAD, BURNT, TAKEN_OUT = range(6)
PURPOSES = {"supply": SUPPLY, "pad": PAD}
UNANSWERED = 16
WINDOW = 8

pack = msgspec.msgpack.encode
unpack = msgspec.msgpack.decode


class Broken(Exception):
    """The other end broke the protocol: close the connection."""


def require(holds: bool, rule: str) -> None:
    if not holds:
        raise Broken(rule)


VENDOR = "acme"
"""Of this end's modules."""


def len2(content: bytes) -> bytes:
    return struct.pack(">H", len(content)) + content


def len4(content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + content


def frame(kind: int, position: int, payload: bytes, tag: bytes = b"") -> bytes:
    return len4(struct.pack(">BQB", kind, position, len(tag)) + tag + payload)


class Run:
    """One run as this end knows it: the bits, and what became of each byte."""

    def __init__(self) -> None:
        self.bits = bytearray()
        self.flags = bytearray()
        self.mark = 0
        self.floor = 0
        self.segments: dict[int, int] = {}

    @property
    def append(self) -> int:
        return len(self.flags)

    def reach(self, position: int) -> None:
        missing = position - self.append
        if missing > 0:
            self.bits += bytes(missing)
            self.flags += bytes([ABSENT]) * missing

    def place(self, start: int, content: bytes) -> None:
        self.reach(start + len(content))
        self.bits[start : start + len(content)] = content
        self.flags[start : start + len(content)] = bytes([UNTOUCHED]) * len(content)

    def is_all(self, flag: int, start: int, length: int) -> bool:
        return self.flags[start : start + length] == bytes([flag]) * length and start >= 0

    def set(self, flag: int, start: int, length: int) -> None:
        length = max(0, min(length, self.append - start))
        self.flags[start : start + length] = bytes([flag]) * length
        if flag == BURNT:
            self.bits[start : start + length] = bytes(length)

    def spans(self, low: int, *, untouched: bool) -> list[list[int]]:
        """Where bytes from `low` on are untouched, or where they are not."""
        pattern = rb"\x01+" if untouched else rb"[^\x01]+"
        return [[m.start(), m.end() - m.start()] for m in re.compile(pattern, re.DOTALL).finditer(self.flags, low)]

    def key(self, position: int) -> bytes:
        """32 bytes for one purpose; they are gone afterwards."""
        held = self.is_all(UNTOUCHED, position, 32) or self.is_all(TAKEN_OUT, position, 32)
        require(held, f"no key at {position}")
        key = bytes(self.bits[position : position + 32])
        self.set(BURNT, position, 32)
        return key


class Peer:
    def __init__(self, name: str, other: str, link: bytes, secret: bytes) -> None:
        self.name, self.other, self.link = name, other, link
        self.leads = name < other
        self.runs = [Run() for _ in range(6)]
        mine = 0 if self.leads else 1
        self.own_key, self.their_key = self.runs[mine], self.runs[1 - mine]
        self.own_opening, self.their_opening = self.runs[2 + mine], self.runs[3 - mine]
        self.own_tags, self.their_tags = self.runs[4 + mine], self.runs[5 - mine]
        for half in (0, 1):
            part = secret[half * 32_768 : half * 32_768 + 32_768]
            self.runs[2 + half].place(0, part[:4096])
            self.runs[4 + half].place(0, part[4096:])
        self.start, self.journal, self.epoch = 1, 1, 1
        self.signer = signer(name)
        self.vouch_key = os.urandom(32)
        self.incarnation = os.urandom(8)
        self.epoch_incarnation = self.incarnation
        self.told: tuple[int, int, bytes] = (0, 0, b"")
        self.their_epoch: tuple[int, bytes] | None = None
        self.seen: dict[str, set[int]] = {}
        self.blocks: dict[tuple[str, int], bytes] = {}
        """What modules delivered and was not yet agreed."""
        self.secrets: dict[str, dict[int, bytes]] = {name: {}, other: {}}
        self.confirmed_secrets: set[int] = set()
        self.requests: dict[int, tuple[int, list[list[int]]]] = {}
        self.stock: dict[int, list[tuple[int, int]]] = {SUPPLY: [], PAD: []}
        """Leases of ours that may be spent, by purpose."""
        self.answers: list[tuple[int, bool]] = []
        self.leases_asked: list[tuple[int, str]] = []
        """By the other end."""
        self.statements: list[list] = []
        self.plain: list[list] = []
        self.closed = True

    # --- a connection ---------------------------------------------------------------------------------------------

    def connect(self) -> bytes:
        self.closed = self.open = self.proved = self.proof_sent = False
        self.inbox = bytearray()
        self.said: list[bytes] = []
        self.heard: list[bytes] = []
        self.keys: deque[int] = deque()
        self.expected: deque[int] = deque()
        self.grantable: list[tuple[int, int]] = []
        self.unconfirmed: dict[tuple[str, int], list] = {}
        self.proposed: dict[tuple[str, int], list] = {}
        self.outbox: list[list | Callable[[int], list]] = []
        self.requests.clear()
        claims = [list(run.spans(run.mark, untouched=True)) for run in (self.own_opening, self.own_tags)]
        self.hello = [1, 1, self.link, self.start, self.incarnation, os.urandom(16), *claims]
        return self.say(HELLO, pack(self.hello))

    def say(self, kind: int, payload: bytes) -> bytes:
        self.said.append(payload)
        return frame(kind, 0, payload)

    def receive(self, data: bytes) -> bytes:
        """Takes a piece of the stream; gives what to send. Raises Broken: then the connection is to be closed."""
        self.inbox += data
        out = b""
        while len(self.inbox) >= 14:
            length, kind, position, tag_length = struct.unpack(">IBQB", self.inbox[:14])
            require(10 + tag_length <= length <= 1_048_572 and tag_length in (0, 16), "frame lengths")
            if len(self.inbox) < 4 + length:
                break
            tag, payload = bytes(self.inbox[14 : 14 + tag_length]), bytes(self.inbox[14 + tag_length : 4 + length])
            del self.inbox[: 4 + length]
            handler = {HELLO: self.on_hello, GRANT: self.on_grant, PROOF: self.on_proof}.get(kind)
            if kind in (PROOF, STATE):
                require(tag_length == 16, "tagged frames have a tag")
                out += self.on_proof(position, payload, tag) if kind == PROOF else self.on_state(position, payload, tag)
            else:
                require(kind == PLAIN or handler is not None, "unknown frame type")
                require(not tag and not position, "untagged frames have no tag")
                out += handler(payload) if handler else self.on_plain(payload)
        return out + self.flush()

    def on_hello(self, payload: bytes) -> bytes:
        require(not self.heard, "one HELLO, first")
        low, high, link, start, incarnation, nonce, opening, tags = unpack(payload)[:8]
        require(low <= 1 <= high and link == self.link, "version or link number")
        require(len(incarnation) == 8 and len(nonce) == 16, "lengths in HELLO")
        self.heard.append(payload)
        self.their_start, self.their_tags_claim = start, tags
        run = self.their_opening
        for low, length in opening:
            position = max(low, run.mark)
            if position + 32 <= low + length and run.is_all(UNTOUCHED, position, 32):
                break
        else:
            raise Broken("no opening key left")
        self.granted = position
        run.set(TAKEN_OUT, position, 32)
        self.journal += 1
        return self.say(GRANT, pack([position])) + self.prove()

    def on_grant(self, payload: bytes) -> bytes:
        require(len(self.heard) == 1, "one GRANT, after HELLO")
        (position,) = unpack(payload)
        require(position >= self.own_opening.mark and self.own_opening.is_all(UNTOUCHED, position, 32), "bad GRANT")
        self.heard.append(payload)
        self.proof_position = position
        self.own_opening.set(TAKEN_OUT, position, 32)
        return self.prove()

    def transcript(self) -> bytes:
        parts = self.said + self.heard if self.leads else self.heard + self.said
        return b"".join(map(len4, parts))

    def vouch(self, start: int, journal: int) -> bytes:
        return hmac.digest(self.vouch_key, struct.pack(">QQ", start, journal), hashlib.sha256)[:16]

    def prove(self) -> bytes:
        if len(self.heard) < 2 or len(self.said) < 2 or self.proof_sent:
            return b""
        self.proof_sent = True
        for low, length in self.their_tags_claim:
            for start, size in self.their_tags.spans(max(low, self.their_tags.mark), untouched=True):
                end = min(start + size, low + length)
                if end > max(start, low):
                    self.grantable.append((max(start, low), end))
        payload = pack(self.proof())
        message = self.transcript() + struct.pack(">BQ", PROOF, self.proof_position) + payload
        tag = Poly1305.generate_tag(self.own_opening.key(self.proof_position), message)
        return frame(PROOF, self.proof_position, payload, tag)

    def proof(self) -> list:
        credit = self.credit()
        self.first_granted = credit[0][0]
        runs = []
        for number, run in enumerate(self.runs):
            base = run.floor if number < 2 else max(run.floor, run.mark)
            runs.append([number, run.append, base, run.spans(base, untouched=False)])
        intake = []
        for module, numbers in self.seen.items():
            highest = max(numbers)
            intake.append([module, highest, sum(1 << highest - n for n in numbers if highest - n < 64)])
        self.journal += 1
        mine = [self.epoch, self.epoch_incarnation, self.journal, self.vouch(self.start, self.journal)]
        return [*mine, *self.told, runs, intake, list(self.secrets[self.other]), credit]

    def on_proof(self, position: int, payload: bytes, tag: bytes) -> bytes:
        require(self.proof_sent and not self.proved and position == self.granted, "PROOF out of place")
        message = self.transcript() + struct.pack(">BQ", PROOF, position) + payload
        genuine = Poly1305.generate_tag(self.their_opening.key(position), message)
        require(hmac.compare_digest(genuine, tag), "tag of PROOF")
        body = unpack(payload)
        epoch, (told_start, told_journal, told_vouch, runs, intake, secrets, credit) = tuple(body[:2]), body[4:]
        if told_vouch and told_vouch == self.vouch(told_start, told_journal):
            require((told_start, told_journal) <= (self.start, self.journal), "we were restored")
        require(sorted(r[0] for r in runs) == list(range(6)), "all six runs")
        self.merge_credit(credit)
        require(len(self.keys) >= 2, "first credit")
        self.own_tags.set(BURNT, 0, credit[0][0])
        self.their_tags.set(BURNT, 0, self.first_granted)
        for run, place in ((self.own_opening, self.proof_position), (self.their_opening, self.granted)):
            run.mark = max(run.mark, place + 32)
            run.set(BURNT, 0, run.mark)
        for number, append, floor, touched in runs:
            self.merge_run(self.runs[number], append, floor, touched, number)
        if self.their_epoch not in (None, epoch):
            for run in (self.own_key, self.their_key):
                for flag in (SUPPLY, PAD):
                    run.flags[:] = run.flags.replace(bytes([flag]), bytes([BURNT]))
            self.stock = {SUPPLY: [], PAD: []}
        for module, highest, recent in intake:
            self.seen.setdefault(module, set()).update(highest - bit for bit in range(64) if recent >> bit & 1)
        for dead in set(self.secrets[self.name]) - set(secrets):
            del self.secrets[self.name][dead]
            self.confirmed_secrets.discard(dead)
        self.their_epoch = epoch
        self.proved = True
        self.journal += 1
        return self.tagged([])

    def merge_run(self, run: Run, append: int, floor: int, touched: list[list[int]], number: int) -> None:
        if number >= 2:
            for start, length in touched:
                run.set(BURNT, start, length)
            run.set(BURNT, max(append, floor), run.append)
            if number < 4:
                run.mark = max(run.mark, floor)
                run.set(BURNT, 0, run.mark)
        else:
            theirs = [False] * append
            for start, length in touched:
                theirs[start : start + length] = [True] * length
            for start, length in run.segments.items():
                flag, known = run.flags[start], start + length <= append
                if flag == UNTOUCHED and (not known or any(theirs[start : start + length])):
                    run.set(BURNT, start, length)
                elif (
                    run is self.own_key
                    and flag in (SUPPLY, PAD)
                    and not (known and all(theirs[start : start + length]))
                ):
                    run.set(BURNT, start, length)
                    for spans in self.stock.values():
                        spans[:] = [span for span in spans if not start <= span[0] < start + length]
            if run is self.their_key:
                run.floor = max(run.floor, floor)
        run.reach(append)

    # --- credits and tagged frames --------------------------------------------------------------------------------

    def credit(self) -> list[list[int]]:
        """Fills the window of positions that the other end may use."""
        spans: list[list[int]] = []
        run, wanted = self.their_tags, WINDOW - len(self.expected)
        for start, end in self.grantable:
            start = max(start, run.mark)
            count = min(wanted, (end - start) // 32)
            if count > 0:
                spans.append([start, count * 32])
                self.expected.extend(range(start, start + count * 32, 32))
                run.mark = start + count * 32
                wanted -= count
        return spans

    def merge_credit(self, spans: list[list[int]]) -> None:
        run = self.own_tags
        for start, length in spans:
            require(length >= 32 and start >= run.mark and run.is_all(UNTOUCHED, start, length), "bad credit")
            run.mark = start + length
            self.keys.extend(range(start, start + length - 31, 32))

    def tagged(self, messages: list[list | Callable[[int], list]], credit: list[list[int]] | None = None) -> bytes:
        credit = self.credit() if credit is None else credit
        position = self.keys.popleft()
        filled = [message(self.keys.popleft()) if callable(message) else message for message in messages]
        self.journal += 1
        payload = pack([self.journal, self.vouch(self.start, self.journal), credit, filled])
        return self.state_frame(position, payload)

    def state_frame(self, position: int, payload: bytes) -> bytes:
        message = struct.pack(">BQ", STATE, position) + payload
        return frame(STATE, position, payload, Poly1305.generate_tag(self.own_tags.key(position), message))

    def flush(self) -> bytes:
        out = b""
        while self.proved and self.outbox and len(self.keys) > 1 + callable(self.outbox[0]):
            out += self.tagged([self.outbox.pop(0)])
        if self.proved and len(self.expected) <= WINDOW // 4 and self.keys:
            credit = self.credit()
            out += self.tagged([], credit) if credit else b""
        return out

    def on_state(self, position: int, payload: bytes, tag: bytes) -> bytes:
        require(self.proved and bool(self.expected) and position == self.expected.popleft(), "position not granted")
        message = struct.pack(">BQ", STATE, position) + payload
        genuine = Poly1305.generate_tag(self.their_tags.key(position), message)
        require(hmac.compare_digest(genuine, tag), "tag of STATE")
        journal, vouch, credit, messages = unpack(payload)
        self.merge_credit(credit)
        self.told = (self.their_start, journal, vouch)
        first, self.open = not self.open, True
        for kind, *rest in messages:
            self.handlers[kind](self, *rest)
        if first:
            self.name_secret()
            self.propose_what_waits()
        return b""

    def take_key(self, position: int) -> bytes:
        require(bool(self.expected) and position == self.expected.popleft(), "key of a message not granted")
        return self.their_tags.key(position)

    def on_plain(self, payload: bytes) -> bytes:
        require(self.proved, "PLAIN before PROOF")
        (messages,) = unpack(payload)
        self.plain += [message for message in messages if message[0] != KEEP_ALIVE]
        return b""

    def tell(self, *applications: str) -> bytes:
        """Our link state: one link, and the applications we serve."""
        links = [[self.other, self.own_key.flags.count(UNTOUCHED), 0, True]]
        return frame(PLAIN, 0, pack([[self.link_state(links, applications)]]))

    def link_state(self, links: list, applications: tuple[str, ...] = ()) -> list:
        self.journal += 1
        statement = pack([self.name, self.start << 32 | self.journal, links, applications])
        return [LINK_STATE, statement, *self.signer.sign(statement), EVERYWHERE]

    # --- blocks ---------------------------------------------------------------------------------------------------

    def deliver(self, module: str, number: int, bits: bytes) -> None:
        self.blocks[module, number] = bits
        self.propose_what_waits()

    def fingerprint(self, key: bytes, module: str, blocks: list[tuple[int, bytes]]) -> bytes:
        context = self.link + len2(module.encode())
        context += b"".join(struct.pack(">QQ", number, len(bits)) for number, bits in blocks)
        return Poly1305.generate_tag(key, len4(context) + b"".join(bits for _, bits in blocks))

    def propose_what_waits(self) -> None:
        """As many as may wait for an answer."""
        if not self.leads or self.closed or not self.open:
            return
        for module, number in list(self.blocks):
            if (module, number) not in self.proposed and len(self.proposed) < UNANSWERED:
                self.propose(module, number)

    def propose(self, module: str, number: int) -> None:
        """Half of the block to each key run, in segments of 1 KiB."""
        bits = self.blocks[module, number]
        half = len(bits) // 2
        placements = [[0, self.runs[0].append, half], [1, self.runs[1].append, half]]
        for run_number, start, length in placements:
            self.runs[run_number].reach(start + length)
        self.proposed[module, number] = placements

        def make(position: int) -> list:
            print_ = self.fingerprint(self.own_tags.key(position), module, [(number, bits)])
            return [AGREE, module, [[number, len(bits), 1e-9, VENDOR]], position, print_, placements, 1024, False]

        self.outbox.append(make)

    def on_agree(self, module, blocks, key_position, fingerprint, placements, segment, _):  # type: ignore[no-untyped-def]
        require(not self.leads, "the higher end proposes nothing")
        self.heard_of_block = tuple(blocks[-1][2:])
        key = self.take_key(key_position)
        numbers = [number for number, *_ in blocks]
        seen = self.seen.setdefault(module, set())
        lacking = [number for number in numbers if number in seen or (module, number) not in self.blocks]
        ours = [(number, self.blocks[module, number]) for number in numbers if number not in lacking]
        fits = all(start >= self.runs[run].append for run, start, _ in placements)
        alike = not lacking and [len(bits) for _, bits in ours] == [length for _, length, *_ in blocks]
        accepted = fits and alike and hmac.compare_digest(self.fingerprint(key, module, ours), fingerprint)
        for number in numbers if accepted or len(numbers) == 1 else lacking:
            self.blocks.pop((module, number), None)
            seen.add(number)
        if accepted:
            self.store(b"".join(bits for _, bits in ours), placements, segment)
            self.unconfirmed[module, numbers[0]] = placements
        said = [[1e-9, VENDOR] for _ in numbers] if accepted else []
        self.outbox.append([ANSWER_BLOCK, module, numbers[0], accepted, said, lacking])

    def store(self, bits: bytes, placements: list[list[int]], segment: int) -> None:
        at = 0
        for number, start, length in placements:
            run = self.runs[number]
            run.place(start, bits[at : at + length])
            at += length
            if number < 2:
                for low in range(start, start + length, segment):
                    run.segments[low] = min(segment, start + length - low)

    def on_answer_block(self, module: str, number: int, accepted: bool, said: list, lacking: list) -> None:
        placements = self.proposed.pop((module, number), None)
        require(placements is not None, "an answer to nothing")
        for each in said:
            self.heard_of_block = tuple(each)
        bits = self.blocks.pop((module, number))
        self.seen.setdefault(module, set()).add(number)
        if accepted:
            self.store(bits, placements or [], 1024)
            self.shared(placements or [])
            if any(self.runs[run] is self.own_tags for run, *_ in placements or []):
                self.outbox.append([STORED, module, number])
        self.propose_what_waits()

    def on_stored(self, module: str, number: int) -> None:
        self.shared(self.unconfirmed.pop((module, number), []))

    def shared(self, placements: list[list[int]]) -> None:
        """Both ends have these bits: what lies in the peer's tag run may be granted."""
        self.grantable += [
            (start, start + n) for number, start, n in placements if self.runs[number] is self.their_tags
        ]

    # --- leases ---------------------------------------------------------------------------------------------------

    def ask_lease(self, purpose: str, count: int = 1) -> int:
        run = self.own_key
        whole = [[s, n] for s, n in run.segments.items() if run.is_all(UNTOUCHED, s, n) and s >= run.floor][:count]
        request = len(self.answers) + len(self.requests) + 1
        self.requests[request] = (PURPOSES[purpose], whole)
        self.outbox.append([REQUEST, request, purpose, whole])
        return request

    def on_request(self, request: int, purpose: str, segments: list[list[int]]) -> None:
        self.leases_asked.append((request, purpose))
        require(purpose in PURPOSES, "purpose")
        run = self.their_key
        distinct = len({start for start, _ in segments}) == len(segments) > 0
        granted = distinct and all(
            run.segments.get(start) == n and start >= run.floor and run.is_all(UNTOUCHED, start, n)
            for start, n in segments
        )
        for start, length in segments if granted else ():
            run.set(PURPOSES[purpose], start, length)
        self.outbox.append([ANSWER_LEASE, request, granted])

    def on_answer_lease(self, request: int, granted: bool) -> None:
        require(request in self.requests, "an answer to nothing")
        flag, segments = self.requests.pop(request)
        untouched = [s for s in segments if self.own_key.is_all(UNTOUCHED, *s)]
        took = granted and untouched == segments
        for start, length in untouched:
            self.own_key.set(flag if took else BURNT, start, length)
        if took:
            self.stock[flag] += [(start, length) for start, length in segments]
            self.confirmed_secrets.update(self.secrets[self.name])
        self.answers.append((request, took))

    def on_statement(self, *totals) -> None:  # type: ignore[no-untyped-def]
        self.statements.append(list(totals))
        floor = totals[6]
        require(floor <= self.their_key.append, "floor above the run")
        if floor > self.their_key.floor:
            self.their_key.floor = floor
            self.their_key.set(BURNT, 0, floor)

    # --- key IDs --------------------------------------------------------------------------------------------------

    def name_secret(self) -> None:
        epoch = max(self.secrets[self.name], default=0) + 1

        def make(position: int) -> list:
            self.secrets[self.name][epoch] = self.own_tags.key(position)
            return [NAME_SECRET, epoch, position]

        self.outbox.append(make)

    def on_name_secret(self, epoch: int, key_position: int) -> None:
        require(epoch > max(self.secrets[self.other], default=0), "epochs rise")
        self.secrets[self.other][epoch] = self.take_key(key_position)

    def issue(self, length: int, master: str, slave: str) -> tuple[str, bytes]:
        """A key out of a lease, and its ID."""
        start, size = self.stock[SUPPLY].pop(0)
        self.stock[SUPPLY].insert(0, (start + length, size - length))
        bits = bytes(self.own_key.bits[start : start + length])
        self.own_key.set(BURNT, start, length)
        epoch = max(self.confirmed_secrets)
        sealed = seal(self.secrets[self.name][epoch], (self.name, self.other, epoch), master, slave,
                      (0 if self.leads else 1, start, length))  # fmt: skip
        return sealed, bits

    def fetch(self, id: str, master: str, slave: str) -> bytes | int:
        """The key, or 401, or 400."""
        status = 400
        for epoch, secret in self.secrets[self.other].items():
            found = unseal(secret, (self.other, self.name, epoch), master, slave, id)
            if isinstance(found, tuple):
                number, start, length = found
                run = self.their_key
                if self.runs[number] is not run or start < run.floor or not run.is_all(SUPPLY, start, length):
                    return 400
                bits = bytes(run.bits[start : start + length])
                run.set(BURNT, start, length)
                return bits
            status = 401 if found == 401 else status
        return status

    handlers = {
        AGREE: on_agree, ANSWER_BLOCK: on_answer_block, STORED: on_stored, REQUEST: on_request,
        ANSWER_LEASE: on_answer_lease, STATEMENT: on_statement, NAME_SECRET: on_name_secret,
    }  # fmt: skip


def aes(key: bytes, block: int) -> int:
    encryptor = Cipher(algorithms.AES(key), modes.ECB()).encryptor()
    return int.from_bytes(encryptor.update(block.to_bytes(16, "big")), "big")


def id_keys(secret: bytes, seat: tuple[str, str, int]) -> list[bytes]:
    issuer, other, epoch = seat
    fields = [b"keyhop id v1", issuer.encode(), other.encode(), struct.pack(">Q", epoch)]
    info = b"".join(map(len2, fields))
    return [HKDF(SHA256(), 32, None, info + len2(bytes([i]))).derive(secret) for i in (1, 2, 3, 4)]


def tags_of(keys: list[bytes], c: int, master: str, slave: str) -> tuple[int, int]:
    h = hmac.digest(keys[3], len2(master.encode()) + len2(slave.encode()), hashlib.sha256)[:8]
    return aes(keys[0], c << 64) >> 104, aes(keys[1], c << 64 | int.from_bytes(h, "big")) >> 94


def seal(secret: bytes, seat: tuple[str, str, int], master: str, slave: str, place: tuple[int, int, int]) -> str:
    keys, (run, start, length) = id_keys(secret, seat), place
    c = run << 48 | start << 14 | length - 1
    t1, t2 = tags_of(keys, c, master, slave)
    body = c ^ aes(keys[2], t1 << 34 | t2) >> 64
    free = body << 58 | t1 << 34 | t2
    return str(
        uuid.UUID(int=(free >> 74) << 80 | 4 << 76 | (free >> 62 & 0xFFF) << 64 | 2 << 62 | free & (1 << 62) - 1)
    )


def unseal(secret: bytes, seat: tuple[str, str, int], master: str, slave: str, id: str) -> tuple[int, int, int] | int:
    value = uuid.UUID(id).int
    free = (value >> 80) << 74 | (value >> 64 & 0xFFF) << 62 | value & (1 << 62) - 1
    keys, tags = id_keys(secret, seat), free & (1 << 58) - 1
    c = free >> 58 ^ aes(keys[2], tags) >> 64
    t1, t2 = tags_of(keys, c, master, slave)
    if t1 != tags >> 34:
        return 400
    return (c >> 48, c >> 14 & (1 << 34) - 1, (c & (1 << 14) - 1) + 1) if t2 == tags & (1 << 34) - 1 else 401
