"""Signatures of key managers over what they tell all others, by the key of the certificate that they connect with."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from keyhop.daemon.identity import Identities, IdentityError

STATEMENT_PREFIX = b"keyhop link state\n"
"""Stands before what is signed. What TLS 1.3 signs with the same key begins with 64 spaces (RFC 8446 section 4.4.3)."""

RSA_LEAST_BITS = 2048
CHECKED_LIMIT = 4096
"""Certificates that were found in order are remembered: checking one costs as much as a signature."""

PrivateKey = ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | ed25519.Ed25519PublicKey | rsa.RSAPublicKey

_PSS = padding.PSS(padding.MGF1(hashes.SHA256()), salt_length=32)


class SigningError(Exception):
    """The certificate, its key or the authority of this node cannot be used to sign; the text says which and why."""


class _Checked(NamedTuple):
    node: str
    key: PublicKey
    not_before: datetime
    not_after: datetime


class NodeIdentity:
    """The core's Identity. It holds the private key and shows it to nobody."""

    def __init__(
        self,
        key: PrivateKey,
        certificate: x509.Certificate,
        authorities: list[x509.Certificate],
        identities: Identities,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        """`authorities` are the only ones whose certificates name key managers; they sign them themselves."""
        self._key = key
        self._certificate = certificate.public_bytes(serialization.Encoding.DER)
        self._authorities = authorities
        self._identities = identities
        self._clock = clock
        self._checked: dict[bytes, _Checked] = {}

    def __repr__(self) -> str:
        return f"NodeIdentity({len(self._authorities)} authorities)"

    @classmethod
    def read(cls, certificate: Path, key: Path, authority: Path, identities: Identities) -> NodeIdentity:
        """From PEM files; raises SigningError."""
        try:
            path = certificate
            own = x509.load_pem_x509_certificates(path.read_bytes())[0]
            path = authority
            authorities = x509.load_pem_x509_certificates(path.read_bytes())
            path = key
            private = serialization.load_pem_private_key(path.read_bytes(), None)
        except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
            reason = getattr(error, "strerror", None) or "is no PEM file of the kind wanted here, or has a passphrase"
            raise SigningError(f"{path}: {reason}") from None
        if not isinstance(private, PrivateKey) or private.public_key() != own.public_key():
            raise SigningError(f"{key}: must be the EC, Ed25519 or RSA key of {certificate}")
        return cls(private, own, authorities, identities)

    def sign(self, statement: bytes) -> tuple[bytes, bytes]:
        message = STATEMENT_PREFIX + statement
        match self._key:
            case ec.EllipticCurvePrivateKey():
                signature = self._key.sign(message, ec.ECDSA(hashes.SHA256()))
            case ed25519.Ed25519PrivateKey():
                signature = self._key.sign(message)
            case rsa.RSAPrivateKey():
                signature = self._key.sign(message, _PSS, hashes.SHA256())
        return self._certificate, signature

    def doubt(self, node: str, statement: bytes, certificate: bytes, signature: bytes) -> str:
        if not certificate or not signature:
            return "it is not signed"
        try:
            checked = self._checked.get(certificate) or self._check(certificate)
            now = self._clock()
            if not checked.not_before <= now < checked.not_after:
                raise IdentityError(f"the certificate is valid from {checked.not_before} to {checked.not_after} only")
            if checked.node != node:
                raise IdentityError(f"it is signed by {checked.node}")
            _verify(checked.key, STATEMENT_PREFIX + statement, signature)
        except IdentityError as error:
            return str(error)
        except InvalidSignature:
            return "the signature is wrong"
        return ""

    def _check(self, der: bytes) -> _Checked:
        """Raises IdentityError unless one of the authorities vouches for the certificate."""
        try:
            certificate = x509.load_der_x509_certificate(der)
            key = certificate.public_key()
            issued = any(self._issued(certificate, authority) for authority in self._authorities)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise IdentityError(f"the certificate cannot be read: {error}") from None
        if not issued:
            raise IdentityError("the certificate is not of an authority for key managers")
        if not isinstance(key, PublicKey) or (isinstance(key, rsa.RSAPublicKey) and key.key_size < RSA_LEAST_BITS):
            raise IdentityError(f"the certificate's key must be EC, Ed25519, or RSA of {RSA_LEAST_BITS} bits or more")
        checked = _Checked(
            self._identities.of(certificate), key, certificate.not_valid_before_utc, certificate.not_valid_after_utc
        )
        if len(self._checked) >= CHECKED_LIMIT:
            self._checked.clear()
        self._checked[der] = checked
        return checked

    def _issued(self, certificate: x509.Certificate, authority: x509.Certificate) -> bool:
        if not authority.not_valid_before_utc <= self._clock() < authority.not_valid_after_utc:
            return False
        try:
            certificate.verify_directly_issued_by(authority)
        except (ValueError, TypeError, InvalidSignature):
            return False
        return True


def _verify(key: PublicKey, message: bytes, signature: bytes) -> None:
    """Raises InvalidSignature."""
    match key:
        case ec.EllipticCurvePublicKey():
            key.verify(signature, message, ec.ECDSA(hashes.SHA256()))
        case ed25519.Ed25519PublicKey():
            key.verify(signature, message)
        case rsa.RSAPublicKey():
            key.verify(signature, message, _PSS, hashes.SHA256())
