"""The laboratory's certificates: they open a mutual TLS 1.3 connection, and only where they should."""

from __future__ import annotations

import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec

from keyhop.daemon import pki
from keyhop.daemon.pki import Issued, PkiError, Role

NOW = datetime.now(UTC).replace(microsecond=0)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("pki")
    pki.init(path, NOW)
    pki.issue(path, Role.KME, "STP", NOW)
    pki.issue(path, Role.SAE, "sae-stp", NOW)
    pki.issue(path, Role.OPERATOR, "olga", NOW)
    return path


def handshake(
    directory: Path, server: Issued, client: Issued, *, server_role: Role, client_role: Role, host: str = "localhost"
) -> str:
    """Both ends over memory; the version of TLS, or the ssl error of the end that refused."""
    server_context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_context.load_cert_chain(server.certificate, server.key)
    server_context.load_verify_locations(pki.authority_certificate(directory, client_role))
    server_context.verify_mode = ssl.CERT_REQUIRED
    client_context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    client_context.load_cert_chain(client.certificate, client.key)
    client_context.load_verify_locations(pki.authority_certificate(directory, server_role))
    up, down = ssl.MemoryBIO(), ssl.MemoryBIO()
    one = client_context.wrap_bio(down, up, server_hostname=host)
    other = server_context.wrap_bio(up, down, server_side=True)
    for _ in range(4):
        for end in (one, other):
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue
    other.write(b"hello")
    assert one.read(5) == b"hello"
    return str(one.version())


def test_an_application_and_a_key_manager_connect_by_tls_1_3(directory: Path) -> None:
    server, client = pki.leaf(directory, Role.KME, "STP"), pki.leaf(directory, Role.SAE, "sae-stp")
    for host in ("localhost", "127.0.0.1"):
        version = handshake(directory, server, client, server_role=Role.KME, client_role=Role.SAE, host=host)
        assert version == "TLSv1.3"


def test_a_key_manager_calls_another(directory: Path) -> None:
    kme = pki.leaf(directory, Role.KME, "STP")
    assert handshake(directory, kme, kme, server_role=Role.KME, client_role=Role.KME) == "TLSv1.3"


def test_an_operator_is_no_application(directory: Path) -> None:
    server, client = pki.leaf(directory, Role.KME, "STP"), pki.leaf(directory, Role.OPERATOR, "olga")
    with pytest.raises(ssl.SSLCertVerificationError):
        handshake(directory, server, client, server_role=Role.KME, client_role=Role.SAE)


def test_an_application_cannot_serve(directory: Path) -> None:
    server, client = pki.leaf(directory, Role.SAE, "sae-stp"), pki.leaf(directory, Role.KME, "STP")
    with pytest.raises(ssl.SSLCertVerificationError, match="unsuitable certificate purpose"):
        handshake(directory, server, client, server_role=Role.SAE, client_role=Role.KME)


def test_a_host_that_the_certificate_does_not_name_is_refused(directory: Path) -> None:
    server, client = pki.leaf(directory, Role.KME, "STP"), pki.leaf(directory, Role.SAE, "sae-stp")
    with pytest.raises(ssl.SSLCertVerificationError, match="Hostname mismatch"):
        handshake(directory, server, client, server_role=Role.KME, client_role=Role.SAE, host="kme.example")


def test_a_certificate_says_who_it_speaks_for(directory: Path) -> None:
    kme = pki.show(pki.leaf(directory, Role.KME, "STP").certificate)
    assert kme.identity == "urn:keyhop:kme:STP"
    assert kme.names == ("URI:urn:keyhop:kme:STP", "DNS:localhost", "IP:127.0.0.1")
    assert kme.purposes == ("client", "server")
    sae = pki.show(pki.leaf(directory, Role.SAE, "sae-stp").certificate)
    assert sae.identity == "urn:keyhop:sae:sae-stp"
    assert sae.names == ("URI:urn:keyhop:sae:sae-stp",)
    assert sae.purposes == ("client",)
    assert pki.show(pki.authority_certificate(directory, Role.SAE)).authority
    assert not sae.authority


def test_certificates_live_thirty_days_and_ask_for_renewal_after_twenty(directory: Path) -> None:
    report = pki.show(pki.leaf(directory, Role.SAE, "sae-stp").certificate)
    assert report.not_after - NOW == timedelta(days=30)
    ages = {0: "valid", 19: "valid", 21: "renew", 30: "expired", -1: "not yet valid"}
    assert {days: report.state(NOW + timedelta(days=days)) for days in ages} == ages


def test_keys_are_p256_and_for_their_owner_alone(directory: Path) -> None:
    for key in [*directory.glob("*.key"), *directory.glob("*/*.key")]:
        assert key.stat().st_mode & 0o777 == 0o600, key
    assert not list(directory.rglob("*.new"))
    certificate = x509.load_pem_x509_certificate(pki.leaf(directory, Role.KME, "STP").certificate.read_bytes())
    public = certificate.public_key()
    assert isinstance(public, ec.EllipticCurvePublicKey) and isinstance(public.curve, ec.SECP256R1)


def test_nothing_is_overwritten_without_force(directory: Path) -> None:
    before = {path: path.read_bytes() for path in directory.rglob("*.*")}
    with pytest.raises(PkiError, match=r"kme-ca\.crt exists; add --force to replace it"):
        pki.init(directory, NOW)
    with pytest.raises(PkiError, match=r"sae-stp\.crt exists; add --force"):
        pki.issue(directory, Role.SAE, "sae-stp", NOW)
    assert {path: path.read_bytes() for path in directory.rglob("*.*")} == before


def test_force_replaces_certificate_and_key(tmp_path: Path) -> None:
    pki.init(tmp_path, NOW)
    first = pki.issue(tmp_path, Role.SAE, "a", NOW)
    before = first.key.read_bytes(), first.certificate.read_bytes()
    second = pki.issue(tmp_path, Role.SAE, "a", NOW, force=True)
    assert second == first
    assert (first.key.read_bytes(), first.certificate.read_bytes()) != before
    assert first.key.stat().st_mode & 0o777 == 0o600


def test_without_an_authority_nothing_is_issued(tmp_path: Path) -> None:
    with pytest.raises(PkiError, match="has no sae authority; run `keyhop pki init` first"):
        pki.issue(tmp_path, Role.SAE, "a", NOW)


def test_a_damaged_authority_is_told(tmp_path: Path) -> None:
    pki.init(tmp_path, NOW)
    pki.authority_key(tmp_path, Role.SAE).write_text("nonsense")
    with pytest.raises(PkiError, match=r"the sae authority .* cannot be read"):
        pki.issue(tmp_path, Role.SAE, "a", NOW)
    pki.authority_key(tmp_path, Role.SAE).write_bytes(pki.authority_key(tmp_path, Role.KME).read_bytes())
    with pytest.raises(PkiError, match="do not belong together"):
        pki.issue(tmp_path, Role.SAE, "a", NOW)


@pytest.mark.parametrize("name", ["", "a b", "../up", "ä", "x" * 64, "-a", "a/b", "a\nb"])
def test_a_name_that_is_none_is_refused(directory: Path, name: str) -> None:
    with pytest.raises(PkiError, match="is no name; use 1 to 63 letters"):
        pki.issue(directory, Role.SAE, name, NOW)


@pytest.mark.parametrize("days", [0, -3, 400])
def test_a_life_that_cannot_be_is_refused(directory: Path, days: int) -> None:
    with pytest.raises(PkiError, match=r"choose less"):
        pki.issue(directory, Role.SAE, "other", NOW, life=timedelta(days=days))


def test_a_host_that_is_none_is_refused(directory: Path) -> None:
    with pytest.raises(PkiError, match="'a b' is no host"):
        pki.issue(directory, Role.KME, "other", NOW, hosts=["a b"])


def test_what_is_no_certificate_is_not_shown(tmp_path: Path) -> None:
    (tmp_path / "x").write_text("nonsense")
    with pytest.raises(PkiError, match=r"x: is no PEM certificate; give the \.crt file"):
        pki.show(tmp_path / "x")
    with pytest.raises(PkiError, match=r"cannot be read \(No such file or directory\)"):
        pki.show(tmp_path / "none")


def test_a_directory_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    (tmp_path / "pki").write_text("a file stands here")
    with pytest.raises(PkiError, match="cannot be written"):
        pki.init(tmp_path / "pki", NOW)
