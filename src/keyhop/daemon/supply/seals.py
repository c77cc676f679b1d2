"""The seals of key IDs that are in use: one per peer, issuer and epoch, gone with the secret it was derived from."""

from __future__ import annotations

from collections.abc import Callable

from keyhop.core.node.context import Context
from keyhop.core.node.rows import secret_name
from keyhop.crypto.keyid import KeyIdSeal
from keyhop.daemon.vault import NodeVault


class Seals:
    def __init__(self, context: Context, vault: NodeVault) -> None:
        self._context = context
        self._vault = vault
        self._seals: dict[str, KeyIdSeal] = {}
        self.on_forgotten: list[Callable[[str], None]] = []
        """Called with a peer whose epochs may have changed: who keeps a seal lets go of one that is over."""

    def __repr__(self) -> str:
        return f"Seals({sorted(self._seals)})"

    def of(self, peer: str, issuer: str, epoch: int) -> KeyIdSeal:
        """Raises KeyError where the vault has no such secret."""
        name = secret_name(peer, issuer, epoch)
        seal = self._seals.get(name)
        if seal is None:
            own = self._context.node
            seal = KeyIdSeal(self._vault.secret(name), issuer, peer if issuer == own else own, epoch)
            self._seals[name] = seal
        return seal

    def in_use(self) -> list[KeyIdSeal]:
        return list(self._seals.values())

    def forget_old(self, peer: str) -> None:
        """A secret that the vault dropped must not live on in here."""
        live = self._context.pairs[peer].secrets
        names = {secret_name(peer, issuer, epoch) for issuer, epochs in live.items() for epoch in epochs}
        for name in [name for name in self._seals if name.startswith(f"{peer}/") and name not in names]:
            del self._seals[name]
        for forgotten in self.on_forgotten:
            forgotten(peer)
