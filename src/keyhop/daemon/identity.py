"""Who a client is: one source in the certificate per listener, matched exactly, with nothing to fall back on."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.x509.oid import NameOID

SAE_URI_PREFIX = "urn:keyhop:sae:"
SEEN_LIMIT = 4096
"""Certificates whose reading is remembered: parsing one costs a tenth of a handshake."""


class IdentityError(Exception):
    """The certificate is valid but names nobody, or more than one, in the place this listener looks at."""


class IdentitySource(StrEnum):
    """Where the ID of an application stands; ETSI GS QKD 014 V1.1.1 leaves the place open."""

    SAN_URI = "san_uri"
    SAN_DNS = "san_dns"
    CN = "cn"
    FINGERPRINT = "fingerprint"


@dataclass(frozen=True)
class Identities:
    """Reads the ID out of a client certificate."""

    source: IdentitySource = IdentitySource.SAN_URI
    uri_prefix: str = SAE_URI_PREFIX
    """For `san_uri`: the ID is what follows it, as it stands."""
    fingerprints: Mapping[str, str] = field(default_factory=dict)
    """For `fingerprint`: SHA-256 of the DER in lower-case hex, to ID."""

    _seen: dict[bytes, str] = field(default_factory=dict, init=False, repr=False, compare=False)

    def of_der(self, der: bytes) -> str:
        """The ID in a certificate that has been verified; raises IdentityError."""
        identity = self._seen.get(der)
        if identity is None:
            try:
                identity = self.of(x509.load_der_x509_certificate(der))
            except ValueError as error:
                raise IdentityError(f"the certificate cannot be read: {error}") from None
            if len(self._seen) >= SEEN_LIMIT:
                self._seen.clear()
            self._seen[der] = identity
        return identity

    def of(self, certificate: x509.Certificate) -> str:
        """The ID; raises IdentityError, whose text says what was found and what would be legal."""
        if self.source is IdentitySource.FINGERPRINT:
            print_hex = certificate.fingerprint(hashes.SHA256()).hex()
            if print_hex not in self.fingerprints:
                raise IdentityError(f"no application has the certificate with SHA-256 {print_hex}")
            return self.fingerprints[print_hex]
        if self.source is IdentitySource.SAN_URI:
            uri = _only("URI", _alternative_names(certificate, x509.UniformResourceIdentifier))
            if not uri.startswith(self.uri_prefix):
                raise IdentityError(f"subject alternative name URI {uri!r}: must begin with {self.uri_prefix!r}")
            identity = uri.removeprefix(self.uri_prefix)
        elif self.source is IdentitySource.SAN_DNS:
            identity = _only("DNS name", _alternative_names(certificate, x509.DNSName))
        else:
            names = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            identity = _only("common name", [str(name.value) for name in names])
        if not identity:
            raise IdentityError(f"the certificate's {self.source} names an empty ID")
        return identity


def _alternative_names(
    certificate: x509.Certificate, kind: type[x509.UniformResourceIdentifier] | type[x509.DNSName]
) -> list[str]:
    try:
        extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName)
    except x509.ExtensionNotFound:
        return []
    except ValueError as error:
        raise IdentityError(f"the certificate's extensions cannot be read: {error}") from None
    return list(extension.value.get_values_for_type(kind))


def _only(what: str, values: list[str]) -> str:
    # Which of two names would count is a matter of order: an authority that checks one may have signed the other.
    if len(values) != 1:
        raise IdentityError(f"the certificate has {len(values)} of {what}: must be exactly one")
    return values[0]
