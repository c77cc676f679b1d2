"""Key-ID secrets: 32 bytes of the issuer's tag run per direction and epoch, named in a tagged frame for this alone."""

from __future__ import annotations

import msgspec

from keyhop.core.machine import DropSecret, KeepSecret
from keyhop.core.messages import NameSecret, Proof
from keyhop.core.model import NANOSECONDS, PeerError, Purpose, Range
from keyhop.core.node.context import Context
from keyhop.core.node.link import Links
from keyhop.core.node.pair import Keyed, Pair
from keyhop.core.node.rows import SecretRow, secret_name

EPOCH_LIFETIME_NS = 30 * 24 * 3600 * NANOSECONDS
EPOCHS_LIMIT = 4
"""Live epochs per issuer; the oldest goes when one more is named."""


class SecretAged(msgspec.Struct, frozen=True, gc=False):
    peer: str
    epoch: int


class Secrets:
    def __init__(self, context: Context, links: Links) -> None:
        self.context = context
        self.frames = links.frames
        self.confirmed: dict[str, int] = {}
        """Peer -> newest own epoch that the peer has durably: what new key IDs are sealed under."""
        self._outlived: dict[str, int] = {}
        """Peer -> newest own epoch that is too old, or from before a restore: a later one is due."""
        self._made_by: dict[str, int] = {}
        """Peer -> which naming of this process made the newest own epoch."""
        self._watched: set[tuple[str, int]] = set()
        links.handlers[NameSecret] = self.named
        links.on_compared.append(self.compared)
        links.on_open.append(self.name_if_needed)

    def name_if_needed(self, pair: Pair) -> None:
        own = pair.secrets[self.context.node]
        if not own or self.confirmed.get(pair.peer) != own[-1] or own[-1] <= self._outlived.get(pair.peer, 0):
            self._name(pair)
        elif (pair.peer, own[-1]) not in self._watched:
            self._watch(pair, own[-1])

    def _name(self, pair: Pair) -> None:
        context = self.context
        pair.namings += 1
        naming = pair.namings

        def make(key: Range) -> NameSecret:
            # The position is the epoch's number: it serves once in all time, whatever copy either end goes on from.
            self._keep(pair, context.node, key.start, key)
            self._made_by[pair.peer] = naming
            self._watch(pair, key.start)
            return NameSecret(key.start, key.start)

        context.say(pair, Keyed(make))

    def _watch(self, pair: Pair, epoch: int) -> None:
        """An epoch that a restart found in force is renewed a lifetime after the restart."""
        self._watched.add((pair.peer, epoch))
        self.context.at(self.context.now + EPOCH_LIFETIME_NS, SecretAged(pair.peer, epoch))

    def aged(self, event: SecretAged) -> None:
        pair = self.context.pairs[event.peer]
        self._watched.discard((event.peer, event.epoch))
        if self.confirmed.get(event.peer) == event.epoch:
            self._outlived[event.peer] = event.epoch
            if pair.is_open:
                self._name(pair)

    def _keep(self, pair: Pair, issuer: str, epoch: int, key: Range) -> None:
        context = self.context
        row = SecretRow(pair.peer, issuer, epoch, False)
        context.vault.keep_secret(row.key, key)
        context.save(KeepSecret(row.key, key))
        context.put(row)
        epochs = pair.secrets[issuer]
        epochs.append(epoch)
        while len(epochs) > EPOCHS_LIMIT:
            self._forget(pair, issuer, epochs.pop(0))

    def _forget(self, pair: Pair, issuer: str, epoch: int) -> None:
        name = secret_name(pair.peer, issuer, epoch)
        self.context.vault.drop_secret(name)
        self.context.save(DropSecret(name))
        self.context.remove(SecretRow(pair.peer, issuer, epoch, False))

    def named(self, pair: Pair, message: NameSecret) -> None:
        """The peer's secret: its copy of the 32 bytes is ours, too."""
        key = self.frames.accept_key(pair, message.key_position)
        if pair.secrets[pair.peer] and message.epoch <= pair.secrets[pair.peer][-1]:
            raise PeerError(f"key-ID epoch {message.epoch}: must be above {pair.secrets[pair.peer][-1]}")
        self._keep(pair, pair.peer, message.epoch, key)
        self.frames.spend_key(pair, key)

    def lent(self, pair: Pair, purpose: Purpose) -> None:
        """A lease was acknowledged that was asked for after the secret was named: the peer has the secret durably."""
        own = pair.secrets[self.context.node]
        handled = pair.namings_handled >= self._made_by.get(pair.peer, 0)
        if own and handled and own[-1] > self._outlived.get(pair.peer, 0):
            self._confirm(pair, own[-1])

    def _confirm(self, pair: Pair, epoch: int) -> None:
        if self.confirmed.get(pair.peer) != epoch:
            self.confirmed[pair.peer] = epoch
            self.context.put(SecretRow(pair.peer, self.context.node, epoch, True))

    def compared(self, pair: Pair, proof: Proof) -> None:
        """A secret of ours that the peer does not hold can open nothing there: it is not used again."""
        own = pair.secrets[self.context.node]
        for epoch in [epoch for epoch in own if epoch not in proof.secrets]:
            own.remove(epoch)
            self._forget(pair, self.context.node, epoch)
            if self.confirmed.get(pair.peer) == epoch:
                del self.confirmed[pair.peer]
        if own and own[-1] > self._outlived.get(pair.peer, 0):
            self._confirm(pair, own[-1])

    def renew_all(self) -> None:
        """After a restore: nothing more is sealed under the secrets of the copy."""
        self.confirmed.clear()
        for pair in self.context.pairs.values():
            self._outlived[pair.peer] = max(pair.secrets[self.context.node], default=0)
