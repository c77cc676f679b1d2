"""The bits of exchanges by ML-KEM-768 (FIPS 203): in memory, for as long as the process lives."""

from __future__ import annotations

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

from keyhop.core.machine import Derived
from keyhop.core.node.exchanges import KDF_VIEW, XOR_VIEW
from keyhop.crypto.derivation import key_of
from keyhop.crypto.onetime import xor


def is_supported() -> bool:
    """Whether the OpenSSL that is here knows ML-KEM."""
    try:
        MLKEM768PrivateKey.generate()
    except UnsupportedAlgorithm:
        return False
    return True


class MlKem:
    """Secrets by (peer, whose, number)."""

    def __init__(self) -> None:
        self._offers: dict[str, tuple[int, MLKEM768PrivateKey]] = {}
        self._secrets: dict[tuple[str, bool, int], bytearray] = {}

    def __repr__(self) -> str:
        return f"MlKem({len(self._secrets)} exchanges)"

    def offer(self, peer: str, number: int) -> bytes:
        key = MLKEM768PrivateKey.generate()
        self._offers[peer] = (number, key)
        return key.public_key().public_bytes_raw()

    def answer(self, peer: str, number: int, public_key: bytes) -> bytes:
        secret, ciphertext = MLKEM768PublicKey.from_public_bytes(public_key).encapsulate()
        self._secrets[peer, False, number] = bytearray(secret)
        return ciphertext

    def accept(self, peer: str, number: int, ciphertext: bytes) -> None:
        offered, key = self._offers.pop(peer)
        if offered != number:
            raise ValueError(f"number {number} was not offered")
        self._secrets[peer, True, number] = bytearray(key.decapsulate(ciphertext))

    def forget(self, peer: str, number: int, *, ours: bool) -> None:
        secret = self._secrets.pop((peer, ours, number), None)
        if secret is not None:
            secret[:] = bytes(len(secret))

    def close(self) -> None:
        for peer, ours, number in list(self._secrets):
            self.forget(peer, number, ours=ours)

    def make(self, found: bytes, key: Derived, *, ours: bool) -> bytes:
        """The key out of the bits of its range. Raises KeyError if the exchange is gone."""
        secret = bytes(self._secrets[key.named.run.peer, ours, key.exchange])
        if key.view == KDF_VIEW:
            return key_of((found, secret), key.size_bits, key.info)
        stream = key_of((secret,), key.size_bits, key.info)
        return bytes(xor(found, stream)) if key.view == XOR_VIEW else stream
