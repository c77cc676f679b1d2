"""A laboratory's certificates: one authority for key managers, one for applications, one for operators."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

LEAF_LIFE = timedelta(days=30)
"""Short, so that a lost key stops mattering by itself."""
AUTHORITY_LIFE = timedelta(days=365)
BACKDATED = timedelta(minutes=5)
"""Clocks of neighbouring machines differ."""
RENEW_AFTER = 2 / 3
"""Share of its life after which a certificate should be renewed."""

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,62}")


class Role(StrEnum):
    KME = "kme"
    SAE = "sae"
    OPERATOR = "operator"


PURPOSES = {
    Role.KME: [ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH],
    Role.SAE: [ExtendedKeyUsageOID.CLIENT_AUTH],
    Role.OPERATOR: [ExtendedKeyUsageOID.CLIENT_AUTH],
}
"""A key manager serves applications and calls other key managers; the others only call."""


class PkiError(Exception):
    """What was refused or is wrong, and what to do."""

    def __init__(self, what: str, next_step: str) -> None:
        super().__init__(f"{what}; {next_step}")
        self.what = what
        self.next_step = next_step


@dataclass(frozen=True, slots=True)
class Issued:
    certificate: Path
    key: Path


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """What a certificate says."""

    subject: str
    issuer: str
    identity: str
    """The Keyhop name in its SAN URI; empty if it has none."""
    names: tuple[str, ...]
    """All alternative names, each with its kind."""
    purposes: tuple[str, ...]
    authority: bool
    serial: str
    not_before: datetime
    not_after: datetime
    fingerprint: str
    """SHA-256 over DER: what `certificate_fingerprint` in a node file wants."""

    def state(self, now: datetime) -> str:
        """`valid`, `renew` after two thirds of its life, `expired` or `not yet valid`."""
        if now < self.not_before:
            return "not yet valid"
        if now >= self.not_after:
            return "expired"
        return "renew" if now > self.not_before + (self.not_after - self.not_before) * RENEW_AFTER else "valid"


def authority_certificate(directory: Path, role: Role) -> Path:
    return directory / f"{role}-ca.crt"


def authority_key(directory: Path, role: Role) -> Path:
    return directory / f"{role}-ca.key"


def leaf(directory: Path, role: Role, name: str) -> Issued:
    """Where `issue` puts the certificate of this name and its key."""
    return Issued(directory / role / f"{name}.crt", directory / role / f"{name}.key")


def identity_uri(role: Role, name: str) -> str:
    return f"urn:keyhop:{role}:{name}"


def init(directory: Path, now: datetime, *, force: bool = False) -> tuple[Issued, ...]:
    """Makes the three authorities. Raises PkiError if one is there and `force` is not given."""
    made = tuple(Issued(authority_certificate(directory, role), authority_key(directory, role)) for role in Role)
    _check_absent([path for issued in made for path in (issued.certificate, issued.key)], force)
    for role, issued in zip(Role, made, strict=True):
        key = ec.generate_private_key(ec.SECP256R1())
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"Keyhop lab {role} CA")])
        builder = _builder(name, name, key.public_key(), now, now + AUTHORITY_LIFE)
        builder = builder.add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
        builder = builder.add_extension(_key_usage(authority=True), critical=True)
        _store(issued, key, builder.sign(key, hashes.SHA256()))
    return made


def issue(
    directory: Path,
    role: Role,
    name: str,
    now: datetime,
    *,
    life: timedelta = LEAF_LIFE,
    hosts: Sequence[str] = ("localhost", "127.0.0.1"),
    force: bool = False,
) -> Issued:
    """A certificate with a new key, signed by the role's authority; `hosts` matter for key managers only."""
    if not NAME.fullmatch(name):
        raise PkiError(f"{name!r} is no name", "use 1 to 63 letters, digits, '.', '_' or '-'")
    issued = leaf(directory, role, name)
    _check_absent([issued.certificate, issued.key], force)
    authority, signer = _authority(directory, role)
    end = now + life
    if life <= timedelta(0) or end > authority.not_valid_after_utc:
        until = f"{authority.not_valid_after_utc:%Y-%m-%d}"
        raise PkiError(f"{life.days} days would outlive the authority or are none", f"it ends on {until}: choose less")
    key = ec.generate_private_key(ec.SECP256R1())
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(identity_uri(role, name))]
    if role is Role.KME:
        names += [_host(host) for host in hosts]
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    builder = _builder(subject, authority.subject, key.public_key(), now, end)
    builder = builder.add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
    builder = builder.add_extension(_key_usage(authority=False), critical=True)
    builder = builder.add_extension(x509.ExtendedKeyUsage(PURPOSES[role]), critical=False)
    builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    identifier = x509.AuthorityKeyIdentifier.from_issuer_public_key(signer.public_key())
    _store(issued, key, builder.add_extension(identifier, critical=False).sign(signer, hashes.SHA256()))
    return issued


def show(path: Path) -> Report:
    """Reads a certificate (never a key). Raises PkiError."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise PkiError(f"{path}: cannot be read ({error.strerror})", "check the name") from None
    try:
        certificate = x509.load_pem_x509_certificate(content)
    except ValueError:
        raise PkiError(f"{path}: is no PEM certificate", "give the .crt file") from None
    return _report(certificate)


def _report(certificate: x509.Certificate) -> Report:
    extensions = certificate.extensions
    names: list[x509.GeneralName] = []
    purposes: tuple[str, ...] = ()
    authority = False
    for extension in extensions:
        if isinstance(extension.value, x509.SubjectAlternativeName):
            names = list(extension.value)
        elif isinstance(extension.value, x509.ExtendedKeyUsage):
            purposes = tuple(sorted(_PURPOSE_WORDS.get(usage, usage.dotted_string) for usage in extension.value))
        elif isinstance(extension.value, x509.BasicConstraints):
            authority = extension.value.ca
    uris = [str(name.value) for name in names if isinstance(name, x509.UniformResourceIdentifier)]
    return Report(
        subject=certificate.subject.rfc4514_string(),
        issuer=certificate.issuer.rfc4514_string(),
        identity=next((uri for uri in uris if uri.startswith("urn:keyhop:")), ""),
        names=tuple(f"{_NAME_WORDS.get(type(name), 'other')}:{name.value}" for name in names),
        purposes=purposes,
        authority=authority,
        serial=f"{certificate.serial_number:x}",
        not_before=certificate.not_valid_before_utc,
        not_after=certificate.not_valid_after_utc,
        fingerprint=certificate.fingerprint(hashes.SHA256()).hex(),
    )


_PURPOSE_WORDS = {ExtendedKeyUsageOID.SERVER_AUTH: "server", ExtendedKeyUsageOID.CLIENT_AUTH: "client"}
_NAME_WORDS = {x509.UniformResourceIdentifier: "URI", x509.DNSName: "DNS", x509.IPAddress: "IP"}


def _authority(directory: Path, role: Role) -> tuple[x509.Certificate, ec.EllipticCurvePrivateKey]:
    try:
        certificate = x509.load_pem_x509_certificate(authority_certificate(directory, role).read_bytes())
        key = serialization.load_pem_private_key(authority_key(directory, role).read_bytes(), None)
    except FileNotFoundError:
        raise PkiError(f"{directory} has no {role} authority", "run `keyhop pki init` first") from None
    except (OSError, ValueError) as error:
        what = f"the {role} authority in {directory} cannot be read ({type(error).__name__})"
        raise PkiError(what, "check the files' owner and mode, or run `keyhop pki init --force`") from None
    if not isinstance(key, ec.EllipticCurvePrivateKey) or key.public_key() != certificate.public_key():
        raise PkiError(f"key and certificate of the {role} authority do not belong together", "restore both, or init")
    return certificate, key


def _builder(
    subject: x509.Name, issuer: x509.Name, public: ec.EllipticCurvePublicKey, now: datetime, end: datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(end)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
    )


def _key_usage(*, authority: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not authority,
        key_cert_sign=authority,
        crl_sign=authority,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        pass
    if not re.fullmatch(r"[A-Za-z0-9]([A-Za-z0-9.-]{0,251}[A-Za-z0-9])?", host):
        raise PkiError(f"{host!r} is no host", "give a name such as kme.example or an IP address")
    return x509.DNSName(host)


def _check_absent(paths: Sequence[Path], force: bool) -> None:
    if force:
        return
    for path in paths:
        if path.exists():
            raise PkiError(f"{path} exists", "add --force to replace it, which makes what it signed or secured useless")


def _store(issued: Issued, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    text = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    try:
        issued.key.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        _replace(issued.key, text, 0o600)
        _replace(issued.certificate, certificate.public_bytes(serialization.Encoding.PEM), 0o644)
    except OSError as error:
        what = f"{error.filename or issued.key}: cannot be written ({error.strerror})"
        raise PkiError(what, "choose a directory you may write to") from None


def _replace(path: Path, content: bytes, mode: int) -> None:
    """A reader sees the old file or the whole new one, and a key never has a mode that others may read."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}.new")
    descriptor = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(fresh, path)
    except OSError:
        fresh.unlink(missing_ok=True)
        raise
