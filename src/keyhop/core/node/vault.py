"""The seam to the key bits: the core names ranges, a vault knows their bits and answers only what is safe to know."""

from __future__ import annotations

from typing import NamedTuple, Protocol

from keyhop.core.model import NodeId, Range

RELAY = "relay"
"""The source of batches that came by relay; their numbers are the sender's own."""
RELAY_SENT = "relay-sent"
"""The source of own batches on their way, until the destination confirms them."""


class BlockName(NamedTuple):
    """A block that is not yet in a run: delivered by a module, or arriving by relay."""

    peer: NodeId
    source: str
    """The module's name, or `relay`."""
    number: int


class Identity(Protocol):
    """What other nodes know this one by: the key of its certificate, and who may certify others."""

    def sign(self, statement: bytes) -> tuple[bytes, bytes]:
        """(certificate, signature) over the statement."""

    def doubt(self, node: str, statement: bytes, certificate: bytes, signature: bytes) -> str:
        """Why the statement is not taken for the word of that node; empty if it is."""


class Vault(Identity, Protocol):
    """Bits by range. Every method but `draw` works on bits that are there; missing bits raise KeyError (our own bug).

    What comes back is a tag, a ciphertext or a yes or no: never a key bit.
    """

    def tag(self, key: Range, message: bytes) -> bytes:
        """The 16-byte one-time tag of the message under the 32 bytes at `key`."""

    def verify(self, key: Range, message: bytes, tag: bytes) -> bool:
        """Whether the tag is right; takes the same time either way."""

    def fingerprint(self, blocks: tuple[BlockName, ...], key: Range, context: bytes) -> bytes:
        """The one-time tag over context and the blocks' bits, one after another."""

    def matches(self, blocks: tuple[BlockName, ...], key: Range, context: bytes, fingerprint: bytes) -> bool:
        """Whether our copies of the blocks have this fingerprint."""

    def join(self, blocks: tuple[BlockName, ...]) -> None:
        """Makes one block of them, under the name of the first; the others are gone."""

    def fingerprint_inside(self, block: BlockName, key_offset: int, context: bytes) -> bytes:
        """As `fingerprint`, keyed by the block's own 32 bytes at `key_offset`, which are left out of the tagged bits.

        For relayed batches, which bring their confirmation keys along (docs/protocol.md 13). The tagged bits are those
        from byte 64 on: both confirmation keys stand first.
        """

    def matches_inside(self, block: BlockName, key_offset: int, context: bytes, fingerprint: bytes) -> bool:
        """Whether our copy of the relayed block has this fingerprint."""

    def length(self, block: BlockName) -> int | None:
        """Bytes of the block, or None if it is not here."""

    def place(self, block: BlockName, offset: int, target: Range) -> None:
        """Copies block bytes [offset, offset + target.length) to `target`, in memory, ready to be sealed."""

    def discard(self, block: BlockName) -> None:
        """Overwrites the block; no error if it is not there."""

    def draw(self, target: Range) -> None:
        """Fills `target` from the node's generator (grade `local`)."""

    def hold(self, block: Range) -> None:
        """Brings a sealed block into memory and keeps it there although its stored copy is dropped."""

    def wipe(self, range: Range) -> None:
        """Overwrites the range in memory, as far as Python can; no error for what is not there."""

    def cipher(self, block: BlockName, pads: tuple[Range, ...]) -> bytes:
        """The block XOR the pads one after another (one-time pad); their lengths add up to the block's."""

    def decipher(self, block: BlockName, ciphertext: bytes, pads: tuple[Range, ...]) -> None:
        """The inverse: what comes out is kept in memory as `block`."""

    def gather(self, block: BlockName, sources: tuple[Range, ...]) -> None:
        """Makes `block` out of the bytes of these ranges, one after another (a payload of own link key)."""

    def keep_secret(self, name: str, source: Range) -> None:
        """A copy of 32 bytes under a name, for the computations of the edge (key IDs)."""

    def drop_secret(self, name: str) -> None:
        """Overwrites it."""

    def vouch(self, statement: bytes) -> bytes:
        """16 bytes that only this node can make (under a key of its node key), for numbers that neighbours return."""
