"""Identity from a certificate: one source, exact, nothing to fall back on."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from keyhop.daemon.identity import Identities, IdentityError, IdentitySource

KEY = ec.generate_private_key(ec.SECP256R1())


def certificate(
    common_names: Sequence[str] = (), *, uris: Sequence[str] = (), dns: Sequence[str] = ()
) -> x509.Certificate:
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text) for text in common_names])
    start = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    builder = x509.CertificateBuilder().subject_name(name).issuer_name(name).public_key(KEY.public_key())
    builder = builder.serial_number(1).not_valid_before(start).not_valid_after(start + datetime.timedelta(days=1))
    names = [*map(x509.UniformResourceIdentifier, uris), *map(x509.DNSName, dns)]
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName(names), critical=False)
    return builder.sign(KEY, hashes.SHA256())


def test_the_uri_is_the_default_source() -> None:
    assert Identities().of(certificate(["other"], uris=["urn:keyhop:sae:alice"], dns=["third"])) == "alice"


@pytest.mark.parametrize(
    "uris",
    [
        [],
        ["urn:keyhop:sae:"],
        ["urn:keyhop:node:alice"],
        ["URN:keyhop:sae:alice"],
        ["https://x/urn:keyhop:sae:alice"],
        ["urn:keyhop:sae:alice", "urn:keyhop:sae:bob"],
        ["urn:keyhop:sae:alice", "urn:keyhop:sae:alice"],
        ["urn:keyhop:sae:alice", "spiffe://other"],
    ],
)
def test_a_certificate_without_exactly_one_uri_of_ours_names_nobody(uris: list[str]) -> None:
    with pytest.raises(IdentityError):
        Identities().of(certificate(["alice"], uris=uris, dns=["alice"]))


def test_an_id_is_taken_as_it_stands() -> None:
    assert Identities().of(certificate(uris=["urn:keyhop:sae:A%20b/c"])) == "A%20b/c"


def test_a_dns_name_counts_only_where_it_is_the_source() -> None:
    by_dns = Identities(IdentitySource.SAN_DNS)
    assert by_dns.of(certificate(["x"], dns=["alice.example"], uris=["urn:keyhop:sae:bob"])) == "alice.example"
    for names in ([], ["a.example", "b.example"]):
        with pytest.raises(IdentityError):
            by_dns.of(certificate(["alice.example"], dns=names))


def test_a_common_name_counts_only_where_it_is_the_source() -> None:
    by_name = Identities(IdentitySource.CN)
    assert by_name.of(certificate(["alice"], uris=["urn:keyhop:sae:bob"])) == "alice"
    for names in ([], ["alice", "bob"]):
        with pytest.raises(IdentityError):
            by_name.of(certificate(names))


def test_a_fingerprint_names_one_certificate_and_no_other() -> None:
    known, unknown = certificate(["a"]), certificate(["b"])
    by_print = Identities(IdentitySource.FINGERPRINT, fingerprints={known.fingerprint(hashes.SHA256()).hex(): "alice"})
    assert by_print.of(known) == "alice"
    with pytest.raises(IdentityError, match=unknown.fingerprint(hashes.SHA256()).hex()):
        by_print.of(unknown)


def test_a_remembered_certificate_is_no_other_one() -> None:
    identities = Identities()
    alice = certificate(uris=["urn:keyhop:sae:alice"]).public_bytes(serialization.Encoding.DER)
    bob = certificate(uris=["urn:keyhop:sae:bob"]).public_bytes(serialization.Encoding.DER)
    assert [identities.of_der(der) for der in (alice, bob, alice, bob)] == ["alice", "bob", "alice", "bob"]


def test_a_refused_certificate_is_refused_again() -> None:
    identities = Identities()
    der = certificate().public_bytes(serialization.Encoding.DER)
    for _ in range(2):
        with pytest.raises(IdentityError):
            identities.of_der(der)


def test_what_is_no_certificate_names_nobody() -> None:
    with pytest.raises(IdentityError):
        Identities().of_der(b"\x30\x03\x02\x01\x01")
