"""Certificates and signatures of the second implementation (protocol.md 3 and 11), and an authority for tests."""

from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

PREFIX = b"keyhop link state\n"


class Signer:
    def __init__(self, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
        self.key = key
        self.certificate = certificate

    @classmethod
    def read(cls, key: bytes, certificate: bytes) -> "Signer":
        private = serialization.load_pem_private_key(key, None)
        assert isinstance(private, ec.EllipticCurvePrivateKey)
        return cls(private, x509.load_pem_x509_certificate(certificate))

    def sign(self, statement: bytes) -> list[bytes]:
        """Certificate and signature, as they stand in LinkState."""
        signature = self.key.sign(PREFIX + statement, ec.ECDSA(hashes.SHA256()))
        return [self.certificate.public_bytes(serialization.Encoding.DER), signature]


class Authority:
    def __init__(self, name: str) -> None:
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        self.certificate = self._certify(self.name, self.key, x509.BasicConstraints(ca=True, path_length=0))

    def issue(self, node: str, *, prefix: str = "urn:keyhop:kme:", ended: bool = False) -> Signer:
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, node)])
        names = x509.SubjectAlternativeName([x509.UniformResourceIdentifier(prefix + node)])
        return Signer(key, self._certify(subject, key, names, ended=ended))

    def _certify(
        self, subject: x509.Name, key: ec.EllipticCurvePrivateKey, extension: x509.ExtensionType, *, ended: bool = False
    ) -> x509.Certificate:
        end = datetime.now(UTC) + timedelta(hours=-1 if ended else 1)
        builder = x509.CertificateBuilder(self.name, subject, key.public_key(), x509.random_serial_number())
        builder = builder.not_valid_before(end - timedelta(hours=2)).not_valid_after(end)
        return builder.add_extension(extension, critical=False).sign(self.key, hashes.SHA256())


AUTHORITY = Authority("key managers of the tests")


@cache
def signer(node: str) -> Signer:
    """The one certificate of this node under `AUTHORITY`."""
    return AUTHORITY.issue(node)
