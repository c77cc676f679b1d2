"""Signatures of key managers: by the certificate they connect with, checked against the authority for key managers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from keyhop.daemon import pki
from keyhop.daemon.identity import Identities
from keyhop.daemon.peers import KME_URI_PREFIX
from keyhop.daemon.signing import NodeIdentity, PrivateKey, SigningError

NOW = datetime(2030, 1, 1, tzinfo=UTC)
STATEMENT = b"what a node tells"
IDENTITIES = Identities(uri_prefix=KME_URI_PREFIX)


def certified(
    name: str,
    key: PrivateKey,
    signer: ec.EllipticCurvePrivateKey,
    *,
    issuer: str = "authority",
    uris: tuple[str, ...] = (),
    end: datetime = NOW + timedelta(days=1),
) -> x509.Certificate:
    def named(common: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common)])

    builder = x509.CertificateBuilder(named(issuer), named(name), key.public_key(), x509.random_serial_number())
    builder = builder.not_valid_before(end - timedelta(days=30)).not_valid_after(end)
    names: list[x509.GeneralName] = [x509.UniformResourceIdentifier(uri) for uri in uris or (KME_URI_PREFIX + name,)]
    return builder.add_extension(x509.SubjectAlternativeName(names), critical=False).sign(signer, hashes.SHA256())


AUTHORITY_KEY = ec.generate_private_key(ec.SECP256R1())
AUTHORITY = certified("authority", AUTHORITY_KEY, AUTHORITY_KEY, end=NOW + timedelta(days=20))
KEYS: dict[str, PrivateKey] = {
    "P-256": ec.generate_private_key(ec.SECP256R1()),
    "P-384": ec.generate_private_key(ec.SECP384R1()),
    "Ed25519": ed25519.Ed25519PrivateKey.generate(),
    "RSA": rsa.generate_private_key(65_537, 2048),
}


def identity(key: PrivateKey, certificate: x509.Certificate, now: datetime = NOW) -> NodeIdentity:
    return NodeIdentity(key, certificate, [AUTHORITY], IDENTITIES, lambda: now)


OTHER_KEY = KEYS["P-256"]
CHECKER = identity(OTHER_KEY, certified("checker", OTHER_KEY, AUTHORITY_KEY))


def said(name: str = "vie", key: PrivateKey = OTHER_KEY, certificate: x509.Certificate | None = None) -> list[bytes]:
    return list(identity(key, certificate or certified(name, key, AUTHORITY_KEY)).sign(STATEMENT))


@pytest.mark.parametrize("kind", KEYS)
def test_what_a_node_signed_is_its_word(kind: str) -> None:
    assert CHECKER.doubt("vie", STATEMENT, *said(key=KEYS[kind])) == ""


@pytest.mark.parametrize("kind", KEYS)
def test_a_changed_statement_is_not(kind: str) -> None:
    assert CHECKER.doubt("vie", STATEMENT + b"!", *said(key=KEYS[kind])) == "the signature is wrong"


@pytest.mark.parametrize("kind", KEYS)
def test_the_signature_of_another_key_is_not(kind: str) -> None:
    certificate, _ = said(key=KEYS[kind])
    _, signature = said(key=ec.generate_private_key(ec.SECP256R1()))
    assert CHECKER.doubt("vie", STATEMENT, certificate, signature) == "the signature is wrong"


def test_a_node_speaks_for_itself_alone() -> None:
    assert CHECKER.doubt("vie", STATEMENT, *said("thief")) == "it is signed by thief"


@pytest.mark.parametrize("part", [0, 1])
def test_what_is_not_signed_is_doubted(part: int) -> None:
    pieces = said()
    pieces[part] = b""
    assert CHECKER.doubt("vie", STATEMENT, *pieces) == "it is not signed"


def test_a_certificate_of_another_authority_is_doubted() -> None:
    strange = ec.generate_private_key(ec.SECP256R1())
    certificate = certified("vie", OTHER_KEY, strange)
    assert "not of an authority" in CHECKER.doubt("vie", STATEMENT, *said(certificate=certificate))


def test_a_certificate_that_a_node_signed_is_doubted() -> None:
    own = ec.generate_private_key(ec.SECP256R1())
    certificate = certified("vie", OTHER_KEY, own, issuer="thief")
    assert "not of an authority" in CHECKER.doubt("vie", STATEMENT, *said(certificate=certificate))


@pytest.mark.parametrize("end", [NOW, NOW + timedelta(days=31)], ids=["ended", "not begun"])
def test_a_certificate_out_of_its_time_is_doubted(end: datetime) -> None:
    certificate = certified("vie", OTHER_KEY, AUTHORITY_KEY, end=end)
    assert "is valid from" in CHECKER.doubt("vie", STATEMENT, *said(certificate=certificate))


def test_a_certificate_that_ends_after_it_was_checked_once_is_doubted_then() -> None:
    times = [NOW]
    checker = NodeIdentity(OTHER_KEY, AUTHORITY, [AUTHORITY], IDENTITIES, lambda: times[-1])
    pieces = said()
    assert checker.doubt("vie", STATEMENT, *pieces) == ""
    times.append(NOW + timedelta(days=2))
    assert "is valid from" in checker.doubt("vie", STATEMENT, *pieces)


def test_an_authority_that_has_ended_vouches_for_nobody() -> None:
    late = identity(OTHER_KEY, AUTHORITY, NOW + timedelta(days=20))
    certificate = certified("vie", OTHER_KEY, AUTHORITY_KEY, end=NOW + timedelta(days=40))
    assert "not of an authority" in late.doubt("vie", STATEMENT, *said(certificate=certificate))


@pytest.mark.parametrize(
    "uris",
    [("urn:keyhop:sae:vie",), (KME_URI_PREFIX + "vie", KME_URI_PREFIX + "thief"), (KME_URI_PREFIX,)],
    ids=["an application", "two nodes", "nobody"],
)
def test_a_certificate_that_does_not_name_one_node_is_doubted(uris: tuple[str, ...]) -> None:
    certificate = certified("vie", OTHER_KEY, AUTHORITY_KEY, uris=uris)
    assert CHECKER.doubt("vie", STATEMENT, *said(certificate=certificate)) != ""


def test_a_short_rsa_key_is_doubted() -> None:
    short = rsa.generate_private_key(65_537, 1024)
    assert "2048 bits" in CHECKER.doubt("vie", STATEMENT, *said(key=short))


@pytest.mark.parametrize("certificate", [b"\x30", bytes(1000), b"not a certificate"])
def test_bytes_that_are_no_certificate_are_doubted(certificate: bytes) -> None:
    assert "cannot be read" in CHECKER.doubt("vie", STATEMENT, certificate, b"signature")


def test_a_signature_of_tls_is_none_of_ours() -> None:
    context = b" " * 64 + b"TLS 1.3, server CertificateVerify\0" + bytes(32)
    key = ec.generate_private_key(ec.SECP256R1())
    certificate = certified("vie", key, AUTHORITY_KEY).public_bytes(serialization.Encoding.DER)
    assert CHECKER.doubt("vie", context, certificate, key.sign(context, ec.ECDSA(hashes.SHA256()))) != ""


# --- files ------------------------------------------------------------------------------------------------------------


def test_files_of_a_lab_sign_and_check(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pki.init(tmp_path, now)
    authority = pki.authority_certificate(tmp_path, pki.Role.KME)
    made = []
    for name in ("a", "b"):
        issued = pki.issue(tmp_path, pki.Role.KME, name, now)
        made.append(NodeIdentity.read(issued.certificate, issued.key, authority, IDENTITIES))
    assert made[1].doubt("a", STATEMENT, *made[0].sign(STATEMENT)) == ""
    assert made[1].doubt("b", STATEMENT, *made[0].sign(STATEMENT)) == "it is signed by a"
    assert "PRIVATE" not in repr(made[0])


def test_a_certificate_of_an_application_speaks_for_no_node(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pki.init(tmp_path, now)
    authority = pki.authority_certificate(tmp_path, pki.Role.KME)
    node, application = pki.issue(tmp_path, pki.Role.KME, "a", now), pki.issue(tmp_path, pki.Role.SAE, "a", now)
    checker = NodeIdentity.read(node.certificate, node.key, authority, IDENTITIES)
    forger = NodeIdentity.read(application.certificate, application.key, authority, IDENTITIES)
    assert "not of an authority" in checker.doubt("a", STATEMENT, *forger.sign(STATEMENT))


def test_key_and_certificate_that_do_not_belong_together_are_refused(tmp_path: Path) -> None:
    now = datetime.now(UTC)
    pki.init(tmp_path, now)
    authority = pki.authority_certificate(tmp_path, pki.Role.KME)
    one, other = (pki.issue(tmp_path, pki.Role.KME, name, now) for name in ("a", "b"))
    with pytest.raises(SigningError, match="must be the EC, Ed25519 or RSA key of"):
        NodeIdentity.read(one.certificate, other.key, authority, IDENTITIES)


@pytest.mark.parametrize("broken", ["certificate", "key", "authority"])
def test_a_file_that_cannot_be_read_is_named(tmp_path: Path, broken: str) -> None:
    now = datetime.now(UTC)
    pki.init(tmp_path, now)
    issued = pki.issue(tmp_path, pki.Role.KME, "a", now)
    files = {
        "certificate": issued.certificate,
        "key": issued.key,
        "authority": pki.authority_certificate(tmp_path, pki.Role.KME),
    }
    for content in (b"nothing of the kind", None):
        files[broken].unlink()
        if content is not None:
            files[broken].write_bytes(content)
        with pytest.raises(SigningError) as caught:
            NodeIdentity.read(files["certificate"], files["key"], files["authority"], IDENTITIES)
        assert str(caught.value).startswith(f"{files[broken]}: ") and "nothing of the kind" not in str(caught.value)
