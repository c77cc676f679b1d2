"""Which certificate speaks for which application, as the node file says it, and until when."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime

from cryptography import x509
from cryptography.hazmat.primitives import hashes

from keyhop.daemon.configuration import ApplicationEntry
from keyhop.daemon.configuration import Identity as Source
from keyhop.daemon.identity import Identities, IdentityError, IdentitySource


@dataclass(frozen=True)
class RegisteredIdentities(Identities):
    """As Identities; an application whose certificates are written down is let in with those alone."""

    pins: dict[str, frozenset[str]] = field(default_factory=dict)
    """Application -> SHA-256 of its certificates in hex."""
    expiries: dict[str, datetime] = field(default_factory=dict)
    """Application -> when the certificate it showed last ends; of registered ones only, so that it stays small."""
    registered: frozenset[str] = frozenset()

    def of(self, certificate: x509.Certificate) -> str:
        identity = super().of(certificate)
        pinned = self.pins.get(identity)
        if pinned and certificate.fingerprint(hashes.SHA256()).hex() not in pinned:
            raise IdentityError(f"the certificate of {identity} is not one of those written down for it")
        if identity in self.registered:
            self.expiries[identity] = certificate.not_valid_after_utc
        return identity


def identities(source: Source, applications: Iterable[ApplicationEntry]) -> RegisteredIdentities:
    """What the listener of the applications looks at."""
    entries = list(applications)
    registered = frozenset(entry.id for entry in entries)
    prints = {str(print_hex): entry.id for entry in entries for print_hex in entry.certificate_fingerprint}
    if source is Source.FINGERPRINT:
        return RegisteredIdentities(IdentitySource.FINGERPRINT, fingerprints=prints, registered=registered)
    pins = {entry.id: frozenset(map(str, entry.certificate_fingerprint)) for entry in entries}
    return RegisteredIdentities(
        IdentitySource(source.value), pins={name: some for name, some in pins.items() if some}, registered=registered
    )
