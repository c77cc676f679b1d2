"""Who a certificate speaks for: what the node file writes down counts, and nothing else."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes

from keyhop.daemon import pki
from keyhop.daemon.configuration import ApplicationEntry, Identity
from keyhop.daemon.identity import IdentityError
from keyhop.daemon.pki import Role
from keyhop.daemon.registered import identities

NOW = datetime.now(UTC)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("pki")
    pki.init(directory, NOW)
    return directory


def certificate(authority: Path, name: str) -> x509.Certificate:
    return x509.load_pem_x509_certificates(pki.issue(authority, Role.SAE, name, NOW).certificate.read_bytes())[0]


def fingerprint(shown: x509.Certificate) -> str:
    return shown.fingerprint(hashes.SHA256()).hex()


def test_an_application_without_pins_is_let_in_with_any_certificate_of_its_name(authority: Path) -> None:
    known = identities(Identity.SAN_URI, [ApplicationEntry(id="sae-free")])
    assert known.of(certificate(authority, "sae-free")) == "sae-free"


def test_an_application_with_pins_is_let_in_with_those_alone(authority: Path) -> None:
    right, wrong = certificate(authority, "sae-pinned"), certificate(authority, "sae-other")
    entry = ApplicationEntry(id="sae-pinned", certificate_fingerprint=(fingerprint(right),))
    assert identities(Identity.SAN_URI, [entry]).of(right) == "sae-pinned"
    entry = ApplicationEntry(id="sae-pinned", certificate_fingerprint=(fingerprint(wrong),))
    with pytest.raises(IdentityError, match="not one of those written down"):
        identities(Identity.SAN_URI, [entry]).of(right)


def test_pins_of_one_application_say_nothing_of_another(authority: Path) -> None:
    pinned, free = certificate(authority, "sae-one"), certificate(authority, "sae-two")
    entries = [ApplicationEntry(id="sae-one", certificate_fingerprint=(fingerprint(pinned),))]
    assert identities(Identity.SAN_URI, entries).of(free) == "sae-two"


def test_where_the_fingerprint_is_the_identity_the_name_counts_for_nothing(authority: Path) -> None:
    shown, other = certificate(authority, "sae-name"), certificate(authority, "sae-unknown")
    known = identities(
        Identity.FINGERPRINT, [ApplicationEntry(id="boxes", certificate_fingerprint=(fingerprint(shown),))]
    )
    assert known.of(shown) == "boxes"
    with pytest.raises(IdentityError, match="no application has the certificate"):
        known.of(other)


def test_the_end_of_a_certificate_is_remembered_for_registered_applications_only(authority: Path) -> None:
    known = identities(Identity.SAN_URI, [ApplicationEntry(id="sae-mine")])
    mine = certificate(authority, "sae-mine")
    known.of(mine)
    known.of(certificate(authority, "sae-stranger"))
    assert known.expiries == {"sae-mine": mine.not_valid_after_utc}
