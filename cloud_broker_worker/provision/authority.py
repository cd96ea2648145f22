"""A certificate authority of one's own, the only file that imports cryptography. In: names. Out: PEM texts.

Keys are P-256 (NIST FIPS 186-5): quick on a small board, known to every TLS library. A certificate is for
one purpose: a member's cannot pose as the broker, the broker's cannot log in. No I/O.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID, ObjectIdentifier

_AUTHORITY_DAYS = 3650
# A board without a battery for its clock may be behind; a certificate from the future would lock it out.
_BACKDATED = timedelta(days=1)
_COMMON_NAME_LENGTH = 64  # of X.520; names in topics are no longer


@dataclass(frozen=True)
class Issued:
    """A certificate and its key as PEM texts, and what the roster must know of it."""

    certificate: str
    key: str
    serial: int
    until: datetime

    def __repr__(self) -> str:  # a key must not reach a log by way of a traceback
        return f"Issued(serial={self.serial:x}, until={self.until:%Y-%m-%d})"


class Authority:
    """A certificate authority in memory."""

    def __init__(self, certificate: str, key: str) -> None:
        """Take up an authority from its PEM texts. Raises ValueError where they are not such."""
        self.certificate, self.key = certificate, key
        self._certificate = x509.load_pem_x509_certificate(certificate.encode())
        loaded = serialization.load_pem_private_key(key.encode(), password=None)
        if not isinstance(loaded, ec.EllipticCurvePrivateKey):
            raise TypeError("the key of the authority is not for elliptic curves")
        self._key = loaded

    @classmethod
    def create(cls, name: str) -> Authority:
        """A new authority, good for ten years. It signs members and brokers, never another authority."""
        key = ec.generate_private_key(ec.SECP256R1())
        now = datetime.now(UTC)
        subject = _named(name)
        identifier = x509.SubjectKeyIdentifier.from_public_key(key.public_key())
        certificate = (
            x509.CertificateBuilder(subject, subject, key.public_key(), x509.random_serial_number())
            .not_valid_before(now - _BACKDATED)
            .not_valid_after(now + timedelta(days=_AUTHORITY_DAYS))
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_usage(signs_certificates=True), critical=True)
            .add_extension(identifier, critical=False)
            .sign(key, hashes.SHA256())
        )
        return cls(_pem(certificate), _key_pem(key))

    @property
    def until(self) -> datetime:
        """When the authority expires, and with it all that it signed."""
        return self._certificate.not_valid_after_utc

    def issue_member(self, name: str, until: datetime) -> Issued:
        """A certificate with which `name` logs in."""
        return self._issue(name, until, ExtendedKeyUsageOID.CLIENT_AUTH, ())

    def issue_server(self, hosts: Sequence[str], until: datetime) -> Issued:
        """A certificate for a broker that is reached under any of `hosts` (names, addresses)."""
        return self._issue("hunch broker", until, ExtendedKeyUsageOID.SERVER_AUTH, hosts)

    def revocation_list(self, revoked: Mapping[int, datetime]) -> str:
        """The list of revoked serial numbers, by when. It never expires: a stale list would lock out all."""
        now = datetime.now(UTC)
        builder = x509.CertificateRevocationListBuilder(self._certificate.subject, now, self.until)
        for serial, since in revoked.items():
            builder = builder.add_revoked_certificate(
                x509.RevokedCertificateBuilder(serial, since).build(),
            )
        builder = builder.add_extension(self._identifier(), critical=False)
        builder = builder.add_extension(x509.CRLNumber(int(now.timestamp() * 1000)), critical=False)
        signed = builder.sign(self._key, hashes.SHA256())
        return signed.public_bytes(serialization.Encoding.PEM).decode()

    def _issue(
        self, common_name: str, until: datetime, purpose: ObjectIdentifier, hosts: Sequence[str]
    ) -> Issued:
        key = ec.generate_private_key(ec.SECP256R1())
        serial = x509.random_serial_number()
        until = min(until, self.until).replace(microsecond=0)
        start = min(datetime.now(UTC), until) - _BACKDATED
        builder = (
            x509.CertificateBuilder(
                self._certificate.subject, _named(common_name), key.public_key(), serial, start, until
            )
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage([purpose]), critical=True)
            .add_extension(self._identifier(), critical=False)
        )
        if hosts:
            names = x509.SubjectAlternativeName([_as_general_name(host) for host in hosts])
            builder = builder.add_extension(names, critical=False)
        return Issued(_pem(builder.sign(self._key, hashes.SHA256())), _key_pem(key), serial, until)

    def _identifier(self) -> x509.AuthorityKeyIdentifier:
        return x509.AuthorityKeyIdentifier.from_issuer_public_key(self._key.public_key())


def _named(common_name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, common_name[:_COMMON_NAME_LENGTH])])


def _as_general_name(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        encipher_only=False,
        decipher_only=False,
    )


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()
