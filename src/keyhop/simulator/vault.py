"""The weightless vault: no bits, but what each block is and how long. Traces are those of a node with bits."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from functools import lru_cache

from keyhop.core.machine import Save
from keyhop.core.model import Range
from keyhop.core.node.store import Store
from keyhop.core.node.vault import RELAY, RELAY_SENT, BlockName, Identity

TAG = bytes(16)
ORIGIN_BYTES = 16


class WeightlessVault:
    """Tags verify where the message is what was tagged: here that is always so, because nobody tampers.

    A block has an origin, the same at both ends of its link; one that was damaged has another. Fingerprints, ciphers
    and what comes out of them are origins, so blocks that differ are found as in a world with bits.
    """

    def __init__(self, store: Store, vouch_key: bytes) -> None:
        self._vouch_key = vouch_key
        self._blocks: dict[BlockName, tuple[int, bytes]] = {}
        self.identity: Identity | None = None

    def __repr__(self) -> str:
        return f"WeightlessVault({len(self._blocks)} blocks waiting)"

    # --- what the world uses ------------------------------------------------------------------------------------------

    def accept(self, block: BlockName, bits: bytearray) -> bool:
        return self.accept_weightless(block, len(bits), origin_of(block))

    def accept_weightless(self, block: BlockName, length: int, origin: bytes) -> bool:
        self._blocks[block] = (length, origin)
        return True

    def read(self, range: Range) -> bytes:
        return b""

    def recall_secrets(self, names: list[str]) -> None:
        pass

    def collect(self, saves: Iterable[Save]) -> Callable[[Range], bytes]:
        return lambda range: nothing(range.length)

    def committed(self, saves: Iterable[Save]) -> None:
        pass

    # --- the core's seam ----------------------------------------------------------------------------------------------

    def sign(self, statement: bytes) -> tuple[bytes, bytes]:
        assert self.identity is not None
        return self.identity.sign(statement)

    def doubt(self, node: str, statement: bytes, certificate: bytes, signature: bytes) -> str:
        assert self.identity is not None
        return self.identity.doubt(node, statement, certificate, signature)

    def tag(self, key: Range, message: bytes) -> bytes:
        return TAG

    def verify(self, key: Range, message: bytes, tag: bytes) -> bool:
        return tag == TAG

    def fingerprint(self, blocks: tuple[BlockName, ...], key: Range, context: bytes) -> bytes:
        origins = [self._blocks[block][1] for block in blocks]
        return origins[0] if len(origins) == 1 else hashlib.blake2b(b"".join(origins), digest_size=16).digest()

    def matches(self, blocks: tuple[BlockName, ...], key: Range, context: bytes, fingerprint: bytes) -> bool:
        return self.fingerprint(blocks, key, context) == fingerprint

    def join(self, blocks: tuple[BlockName, ...]) -> None:
        length = sum(self._blocks[block][0] for block in blocks)
        origin = self._blocks[blocks[0]][1]
        for block in blocks:
            del self._blocks[block]
        self._blocks[blocks[0]] = (length, origin)

    def fingerprint_inside(self, block: BlockName, key_offset: int, context: bytes) -> bytes:
        return self._blocks[block][1]

    def matches_inside(self, block: BlockName, key_offset: int, context: bytes, fingerprint: bytes) -> bool:
        return self._blocks[block][1] == fingerprint

    def length(self, block: BlockName) -> int | None:
        found = self._blocks.get(block)
        return None if found is None else found[0]

    def place(self, block: BlockName, offset: int, target: Range) -> None:
        if block not in self._blocks:
            raise KeyError(block)

    def discard(self, block: BlockName) -> None:
        self._blocks.pop(block, None)

    def draw(self, target: Range) -> None:
        pass

    def hold(self, block: Range) -> None:
        pass

    def wipe(self, range: Range) -> None:
        pass

    def cipher(self, block: BlockName, pads: tuple[Range, ...]) -> bytes:
        length, origin = self._blocks[block]
        return origin.ljust(length, b"\0")

    def decipher(self, block: BlockName, ciphertext: bytes, pads: tuple[Range, ...]) -> None:
        self._blocks[block] = (sum(pad.length for pad in pads), ciphertext[:ORIGIN_BYTES])

    def gather(self, block: BlockName, sources: tuple[Range, ...]) -> None:
        self._blocks[block] = (sum(source.length for source in sources), origin_of(block))

    def keep_secret(self, name: str, source: Range) -> None:
        pass

    def drop_secret(self, name: str) -> None:
        pass

    def vouch(self, statement: bytes) -> bytes:
        return hashlib.blake2b(statement, digest_size=16, key=self._vouch_key).digest()


@lru_cache(maxsize=1024)
def nothing(length: int) -> bytes:
    """One object however many blocks are stored: a disk of weightless blocks takes no room."""
    return bytes(length)


def origin_of(block: BlockName) -> bytes:
    """Of a block that is named alike at both ends but for the peer; a relayed batch has two names for one number."""
    source = RELAY if block.source == RELAY_SENT else block.source
    return hashlib.blake2b(f"{source}/{block.number}".encode(), digest_size=ORIGIN_BYTES).digest()
