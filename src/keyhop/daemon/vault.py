"""The vault of a real node: key bits in buffers that are overwritten, the rest read from the store when wanted."""

from __future__ import annotations

import hashlib
import hmac
import os
from bisect import bisect_right
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from keyhop.core.machine import Audit, Drop, DropSecret, KeepSecret, Put, Save, Seal, Used
from keyhop.core.model import TAG_KEY_BYTES, IllegalMove, Range, RunId
from keyhop.core.node.extents import Extents
from keyhop.core.node.store import Store
from keyhop.core.node.vault import BlockName, Identity
from keyhop.crypto import onetime

CACHE_LIMIT_BYTES = 4 * 1024 * 1024
"""Opened blocks whose sealed copy stays in the store. What is held for leases comes on top; the core bounds that."""

WAITING_LIMIT_BYTES = 64 * 1024 * 1024
"""Blocks that modules delivered and that are not yet agreed."""

ABOUT_NO_BITS = (Audit, Used, Put)
"""Saves that leave the vault as it is: most of those that fetches bring."""

VOUCH_BYTES = 16
INSIDE_FROM_BYTE = 2 * TAG_KEY_BYTES
"""Relayed batches begin with both confirmation keys; what they confirm is the rest."""


class Resident:
    """One stretch of a run whose bits are in memory."""

    __slots__ = ("bits", "end", "held", "lent", "run", "start", "stored", "view", "wiped", "wiped_to")

    def __init__(self, run: RunId, start: int, bits: bytearray, *, stored: bool) -> None:
        self.run = run
        self.start = start
        self.end = start + len(bits)
        self.bits = bits
        self.view = memoryview(bits)
        self.stored = stored
        """A sealed copy is in the store, so that this one may go."""
        self.held = False
        """Kept although the sealed copy goes or is gone."""
        self.lent = False
        """A commit under way seals these bits: they may not change under it."""
        self.wiped: Extents | None = None
        """Positions that were overwritten. They are asked for like bits that were never here: zeros are no key."""
        self.wiped_to = start
        """Nothing from here on was overwritten: supply wipes from the front, so most reads need not look further."""

    def __repr__(self) -> str:
        return f"Resident({self.run}, {self.start}, {self.end - self.start} bytes)"

    def overwrite(self, start: int, stop: int) -> None:
        self.bits[start - self.start : stop - self.start] = bytes(stop - start)


_NOWHERE = Resident(RunId("", -1), -1, bytearray(), stored=True)  # type: ignore[arg-type]


class NodeVault:
    """Bits by range. Called by the thread of the event loop alone; only what `collect` returns may go to another."""

    def __init__(
        self,
        store: Store,
        vouch_key: bytes,
        *,
        identity: Identity | None = None,
        cache_limit_bytes: int = CACHE_LIMIT_BYTES,
    ) -> None:
        self._store = store
        self._vouch_key = vouch_key
        self.identity = identity
        """Without one nothing is signed, and no other node is believed."""
        self._cache_limit_bytes = cache_limit_bytes
        self._cached_bytes = 0
        self._waiting_bytes = 0
        self._blocks: dict[BlockName, bytearray] = {}
        self._secrets: dict[str, bytearray] = {}
        self._starts: dict[RunId, list[int]] = {}
        self._residents: dict[RunId, list[Resident]] = {}
        self._cached: OrderedDict[Resident, None] = OrderedDict()
        self._last = _NOWHERE
        self._joined: list[bytearray] = []
        self._lent: deque[list[bytearray]] = deque()

    def __repr__(self) -> str:
        residents = sum(map(len, self._residents.values()))
        return f"NodeVault({residents} stretches, {len(self._blocks)} blocks waiting)"

    # What the edge uses beside the core's Protocol.

    def accept(self, block: BlockName, bits: bytearray) -> bool:
        """Takes over a block that a module delivered; False, and the bits are overwritten, when too much waits."""
        if self._waiting_bytes + len(bits) > WAITING_LIMIT_BYTES:
            bits[:] = bytes(len(bits))
            return False
        self._keep(block, bits)
        return True

    def read(self, range: Range) -> bytes:
        """The bits of a range, for an answer. Raises KeyError if one of them is not here."""
        run, start, length = range
        last = self._last
        if last.wiped_to <= start and start + length <= last.end and last.run == run:
            start -= last.start
            return bytes(last.view[start : start + length])
        found = bytes(self.bits(range))
        self._scrub()
        return found

    def bits(self, range: Range) -> memoryview:
        """As `read`, without a copy where one stretch holds it all; good until the next call."""
        run, start, length = range
        resident = self._at(run, start)
        if start + length <= resident.end:
            if resident.wiped is not None and resident.wiped.touches(start, start + length):
                raise KeyError(f"{range} was wiped")
            start -= resident.start
            return resident.view[start : start + length]
        joined = bytearray(length)
        self._joined.append(joined)
        position = start
        while True:
            stop = min(resident.end, start + length)
            if resident.wiped is not None and resident.wiped.touches(position, stop):
                raise KeyError(f"{range} was wiped in part")
            joined[position - start : stop - start] = resident.view[position - resident.start : stop - resident.start]
            if stop == start + length:
                return memoryview(joined)
            position = stop
            resident = self._at(run, position)

    def secret(self, name: str) -> bytearray:
        """32 bytes kept under a name; raises KeyError if there are none."""
        return self._secrets[name]

    def recall_secrets(self, names: Iterable[str]) -> None:
        """After a start: reads the secrets that the store's snapshot lists."""
        for name in names:
            self._secrets[name] = self._store.read_secret(name)

    def collect(self, saves: Iterable[Save]) -> Callable[[Range], memoryview]:
        """The bits a commit needs, for the thread that commits: what happens here meanwhile does not change them.

        Each call is followed by one of `committed`, in the same order. Blocks on their way into the store are lent as
        they are; the rest is copied, because the cache may overwrite its blocks while the commit runs.
        """
        wanted: dict[Range, memoryview] = {}
        copies: list[bytearray] = []
        for save in saves:
            if isinstance(save, ABOUT_NO_BITS):
                continue
            match save:
                case Seal(block=range) | KeepSecret(source=range):
                    view = self.bits(range)
                    residents = self._within(range)
                    if isinstance(save, Seal) and len(residents) == 1 and not residents[0].stored:
                        residents[0].lent = True
                    else:
                        copies.append(bytearray(view))
                        view = memoryview(copies[-1])
                    wanted[range] = view
                case _:
                    pass
        self._scrub()
        self._lent.append(copies)
        return wanted.__getitem__

    def committed(self, saves: Iterable[Save]) -> None:
        """What was sealed durably may leave memory now; what was dropped and is not held does."""
        for copy in self._lent.popleft() if self._lent else ():
            copy[:] = bytes(len(copy))
        for save in saves:
            if isinstance(save, ABOUT_NO_BITS):
                continue
            match save:
                case Seal(block=block):
                    for resident in self._within(block):
                        self._is_stored(resident)
                case Drop(block=block):
                    for resident in self._within(block):
                        self._uncache(resident)
                        resident.stored = False
                        if not resident.held:
                            self._forget(resident)
                case DropSecret(name=name):
                    self.drop_secret(name)
                case _:
                    pass
        self._shrink()

    def close(self) -> None:
        """Overwrites all that is in memory."""
        for resident in [resident for residents in self._residents.values() for resident in residents]:
            self._forget(resident)
        for name in list(self._secrets):
            self.drop_secret(name)
        for block in list(self._blocks):
            self.discard(block)
        self._scrub()

    # The core's Protocol.

    def tag(self, key: Range, message: bytes) -> bytes:
        made = onetime.tag(self.bits(key), message)
        self._scrub()
        return made

    def verify(self, key: Range, message: bytes, tag: bytes) -> bool:
        right = onetime.verify(self.bits(key), tag, message)
        self._scrub()
        return right

    def fingerprint(self, blocks: tuple[BlockName, ...], key: Range, context: bytes) -> bytes:
        made = onetime.tag(self.bits(key), _delimited(context), *(self._blocks[block] for block in blocks))
        self._scrub()
        return made

    def matches(self, blocks: tuple[BlockName, ...], key: Range, context: bytes, fingerprint: bytes) -> bool:
        return hmac.compare_digest(self.fingerprint(blocks, key, context), fingerprint)

    def join(self, blocks: tuple[BlockName, ...]) -> None:
        if len(blocks) == 1:
            return
        parts = [self._blocks[block] for block in blocks]
        joined = bytearray(sum(map(len, parts)))
        at = 0
        for part in parts:
            joined[at : at + len(part)] = part
            at += len(part)
        for block in blocks:
            self.discard(block)
        self._keep(blocks[0], joined)

    def fingerprint_inside(self, block: BlockName, key_offset: int, context: bytes) -> bytes:
        view = memoryview(self._blocks[block])
        if not 0 <= key_offset <= INSIDE_FROM_BYTE - TAG_KEY_BYTES or len(view) < INSIDE_FROM_BYTE:
            raise IllegalMove(
                f"confirmation key at byte {key_offset} of a batch of {len(view)}: must lie in its first "
                f"{INSIDE_FROM_BYTE}, which the tag leaves out"
            )
        return onetime.tag(view[key_offset : key_offset + TAG_KEY_BYTES], _delimited(context), view[INSIDE_FROM_BYTE:])

    def matches_inside(self, block: BlockName, key_offset: int, context: bytes, fingerprint: bytes) -> bool:
        return hmac.compare_digest(self.fingerprint_inside(block, key_offset, context), fingerprint)

    def length(self, block: BlockName) -> int | None:
        bits = self._blocks.get(block)
        return None if bits is None else len(bits)

    def place(self, block: BlockName, offset: int, target: Range) -> None:
        source = self._blocks[block]
        if not 0 <= offset <= len(source) - target.length:
            raise KeyError(f"bytes {offset} to {offset + target.length} of {block}, which has {len(source)}")
        self._insert(Resident(target.run, target.start, source[offset : offset + target.length], stored=False))

    def discard(self, block: BlockName) -> None:
        bits = self._blocks.pop(block, None)
        if bits is not None:
            self._waiting_bytes -= len(bits)
            bits[:] = bytes(len(bits))

    def draw(self, target: Range) -> None:
        self._insert(Resident(target.run, target.start, bytearray(os.urandom(target.length)), stored=False))

    def hold(self, block: Range) -> None:
        position = block.start
        while position < block.end:
            resident = self._at(block.run, position)
            self._uncache(resident)
            resident.held = True
            position = resident.end
        self._shrink()

    def wipe(self, range: Range) -> None:
        for resident in self._within(range):
            start, stop = max(range.start, resident.start), min(range.end, resident.end)
            if resident.wiped is None:
                resident.wiped = Extents()
            resident.wiped.add(start, stop)
            resident.wiped_to = max(resident.wiped_to, stop)
            # From here on nobody reads them. What a commit is sealing is overwritten when it is done: zeros must not
            # be sealed as if they were key.
            if not resident.lent:
                resident.overwrite(start, stop)
                if resident.wiped.covers(resident.start, resident.end):
                    self._forget(resident)

    def cipher(self, block: BlockName, pads: tuple[Range, ...]) -> bytes:
        return bytes(self._mixed(self._blocks[block], pads))

    def decipher(self, block: BlockName, ciphertext: bytes, pads: tuple[Range, ...]) -> None:
        self._keep(block, self._mixed(ciphertext, pads))

    def _mixed(self, bits: bytes | bytearray, pads: tuple[Range, ...]) -> bytearray:
        if len(bits) != sum(pad.length for pad in pads):
            raise IllegalMove(f"pads of {sum(p.length for p in pads)} bytes for {len(bits)}: must be of one length")
        if len(pads) == 1:
            mixed = onetime.xor(bits, self.bits(pads[0]))
        else:
            mixed, at, view = bytearray(), 0, memoryview(bits)
            for pad in pads:
                mixed += onetime.xor(view[at : at + pad.length], self.bits(pad))
                at += pad.length
        self._scrub()
        return mixed

    def gather(self, block: BlockName, sources: tuple[Range, ...]) -> None:
        gathered = bytearray(sum(source.length for source in sources))
        at = 0
        for source in sources:
            gathered[at : at + source.length] = self.bits(source)
            at += source.length
        self._scrub()
        self._keep(block, gathered)

    def keep_secret(self, name: str, source: Range) -> None:
        kept = bytearray(self.bits(source))
        self._scrub()
        self.drop_secret(name)
        self._secrets[name] = kept

    def drop_secret(self, name: str) -> None:
        bits = self._secrets.pop(name, None)
        if bits is not None:
            bits[:] = bytes(len(bits))

    def vouch(self, statement: bytes) -> bytes:
        return hmac.digest(self._vouch_key, statement, hashlib.sha256)[:VOUCH_BYTES]

    def sign(self, statement: bytes) -> tuple[bytes, bytes]:
        return self.identity.sign(statement) if self.identity is not None else (b"", b"")

    def doubt(self, node: str, statement: bytes, certificate: bytes, signature: bytes) -> str:
        if self.identity is None:
            return "this node has no authority to check it with"
        return self.identity.doubt(node, statement, certificate, signature)

    # The index.

    def _at(self, run: RunId, position: int) -> Resident:
        """The stretch that holds this byte, opened from the store if need be; raises KeyError."""
        last = self._last
        if last.start <= position < last.end and last.run == run:
            return last
        starts = self._starts.get(run)
        if starts:
            index = bisect_right(starts, position) - 1
            if index >= 0:
                resident = self._residents[run][index]
                if position < resident.end:
                    if resident in self._cached:
                        self._cached.move_to_end(resident)
                    self._last = resident
                    return resident
        block = self._store.covering(run, position)
        if block is None:
            raise KeyError(f"no bits at byte {position} of {run}")
        resident = Resident(run, block.start, self._store.read(block), stored=True)
        self._insert(resident)
        self._cache(resident)
        self._last = resident
        self._shrink()
        return resident

    def _within(self, range: Range) -> list[Resident]:
        """The stretches in memory that have a byte of the range."""
        starts = self._starts.get(range.run)
        if not starts:
            return []
        low = max(bisect_right(starts, range.start) - 1, 0)
        high = bisect_right(starts, range.end - 1)
        return [resident for resident in self._residents[range.run][low:high] if resident.end > range.start]

    def _insert(self, resident: Resident) -> None:
        starts = self._starts.setdefault(resident.run, [])
        index = bisect_right(starts, resident.start)
        residents = self._residents.setdefault(resident.run, [])
        if (index and residents[index - 1].end > resident.start) or (
            index < len(starts) and starts[index] < resident.end
        ):
            resident.overwrite(resident.start, resident.end)
            raise IllegalMove(f"{resident} overlaps bits that are in memory")
        starts.insert(index, resident.start)
        residents.insert(index, resident)

    def _is_stored(self, resident: Resident) -> None:
        resident.lent = False
        if not resident.stored:
            resident.stored = True
            self._cache(resident)
        if resident.wiped is not None:
            for start, stop in resident.wiped:
                resident.overwrite(start, stop)
            if resident.wiped.covers(resident.start, resident.end):
                self._forget(resident)

    def _forget(self, resident: Resident) -> None:
        self._uncache(resident)
        starts = self._starts[resident.run]
        index = bisect_right(starts, resident.start) - 1
        del starts[index], self._residents[resident.run][index]
        if not starts:
            del self._starts[resident.run], self._residents[resident.run]
        if self._last is resident:
            self._last = _NOWHERE
        resident.overwrite(resident.start, resident.end)

    def _cache(self, resident: Resident) -> None:
        if not resident.held:
            self._cached[resident] = None
            self._cached_bytes += len(resident.bits)

    def _uncache(self, resident: Resident) -> None:
        if resident in self._cached:
            del self._cached[resident]
            self._cached_bytes -= len(resident.bits)

    def _shrink(self) -> None:
        # The newest stays whatever its size: a caller may be reading it.
        while self._cached_bytes > self._cache_limit_bytes and len(self._cached) > 1:
            self._forget(next(iter(self._cached)))

    def _keep(self, block: BlockName, bits: bytearray) -> None:
        if block in self._blocks:
            bits[:] = bytes(len(bits))
            raise IllegalMove(f"{block} is here already: its bits would be lost")
        self._blocks[block] = bits
        self._waiting_bytes += len(bits)

    def _scrub(self) -> None:
        """Overwrites copies that were made where a range spans two stretches."""
        while self._joined:
            joined = self._joined.pop()
            joined[:] = bytes(len(joined))


def _delimited(context: bytes) -> bytes:
    """The context with its length before it, so that no context runs into the bits that follow."""
    return len(context).to_bytes(4, "big") + context
