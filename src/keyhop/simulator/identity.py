"""Pretend certificates: a name instead of a certificate, a hash instead of a signature."""

from __future__ import annotations

import hashlib


class PretendIdentity:
    """In a world of pretence nobody signs for another unless a test does so on purpose."""

    def __init__(self, node: str) -> None:
        self._node = node

    def sign(self, statement: bytes) -> tuple[bytes, bytes]:
        name = self._node.encode()
        return name, _signature(name, statement)

    def doubt(self, node: str, statement: bytes, certificate: bytes, signature: bytes) -> str:
        if certificate != node.encode():
            return f"it is signed by {certificate.decode(errors='replace') or 'nobody'}"
        return "" if signature == _signature(certificate, statement) else "the signature is wrong"


def _signature(name: bytes, statement: bytes) -> bytes:
    return hashlib.sha256(len(name).to_bytes(2, "big") + name + statement).digest()
