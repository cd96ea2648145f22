"""The dates of a certificate, read without the library that made it."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from cloud_broker_worker.provision.authority import Authority
from runtime.certificate_dates import Validity, read_validity
from schemas.errors import ConfigurationError


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority.create("tests")


def in_a_file(folder: Path, text: str) -> Path:
    file = folder / "one.pem"
    file.write_text(text)
    return file


@pytest.mark.parametrize("days", [-3, 1, 730], ids=["expired", "a day", "two years"])
def test_both_dates_are_those_that_were_signed(authority, tmp_path, days):
    until = (datetime.now(UTC) + timedelta(days=days)).replace(microsecond=0)
    issued = authority.issue_member("pi", until)
    found = read_validity(in_a_file(tmp_path, f'name = "pi"\n{issued.key}{issued.certificate}'))
    assert found.until == until
    assert found.since < until


def test_dates_after_2049_are_written_in_another_way(tmp_path):
    key, who = ec.generate_private_key(ec.SECP256R1()), x509.Name([])
    since, until = datetime(2049, 12, 31, tzinfo=UTC), datetime(2050, 1, 1, tzinfo=UTC)
    signed = (
        x509.CertificateBuilder(who, who, key.public_key(), 1)
        .not_valid_before(since)
        .not_valid_after(until)
        .sign(key, hashes.SHA256())
    )
    pem = signed.public_bytes(serialization.Encoding.PEM).decode()
    assert read_validity(in_a_file(tmp_path, pem)) == Validity(since, until)


def test_the_first_certificate_of_a_file_counts(authority, tmp_path):
    until = datetime(2031, 5, 4, 3, 2, 1, tzinfo=UTC)
    issued = authority.issue_member("pi", until)
    found = read_validity(in_a_file(tmp_path, issued.certificate + authority.certificate))
    assert found.until == until


def test_an_authority_is_read_too(authority, tmp_path):
    found = read_validity(in_a_file(tmp_path, authority.certificate))
    assert found.until == authority.until
    assert found.since < datetime.now(UTC)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("nothing", "holds no certificate"),
        ("-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n", "is broken"),
        ("-----BEGIN CERTIFICATE-----\n?\n-----END CERTIFICATE-----\n", "is broken"),
    ],
)
def test_what_is_no_certificate_is_one_clear_line(tmp_path, text, complaint):
    with pytest.raises(ConfigurationError, match=complaint):
        read_validity(in_a_file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"gone\.pem: No such file"):
        read_validity(tmp_path / "gone.pem")


def test_a_certificate_cut_before_its_dates_is_broken(authority, tmp_path):
    first, body, *_, last = authority.certificate.splitlines()
    with pytest.raises(ConfigurationError, match="is broken"):
        read_validity(in_a_file(tmp_path, f"{first}\n{body}\n{last}\n"))
