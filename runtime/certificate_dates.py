"""From when until when a certificate is good. In: a PEM file. Out: two times. For boards without `cryptography`.

Python's ssl reads the certificates of others but tells nothing of the own one. The two dates stand at a fixed
place in its DER encoding (RFC 5280, section 4.1).
"""

from __future__ import annotations

import re
import ssl
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from schemas.errors import ConfigurationError

_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.*?-----END CERTIFICATE-----", re.DOTALL)
# DER tags: the version's [0]; UTCTime, with two digits for the year (the other kind of time has four).
_VERSION, _UTC_TIME = 0xA0, 0x17


@dataclass(frozen=True)
class Validity:
    """The first and the last moment of a certificate."""

    since: datetime
    until: datetime


def read_validity(file: Path) -> Validity:
    """The dates of the first certificate in a PEM file. Raises ConfigurationError where there is none."""
    try:
        found = _PEM.search(file.read_text("utf-8"))
        if found is None:
            raise ConfigurationError(f"{file} holds no certificate; give a PEM file")
        return _validity(ssl.PEM_cert_to_DER_cert(found[0]))
    except OSError as error:
        raise ConfigurationError(f"cannot read {file}: {error.strerror}; check that it is there") from error
    except (ValueError, IndexError) as error:  # binascii's and UTF-8's errors are the former
        raise ConfigurationError(f"the certificate in {file} is broken: {error}; fetch it anew") from error


def _validity(der: bytes) -> Validity:
    """Certificate { tbs { version?, serial, algorithm, issuer, validity { since, until } … } … }."""
    fields = _children(_children(der)[0][1])
    body = _children(fields[0][1]) if fields else []
    after_version = body[1:] if body and body[0][0] == _VERSION else body
    since, until = (_time(tag, value) for tag, value in _children(after_version[3][1]))
    return Validity(since, until)


def _children(data: bytes) -> list[tuple[int, bytes]]:
    """Tag and value of each element, in order."""
    elements = []
    at = 0
    while at < len(data):
        tag, length = data[at], data[at + 1]
        at += 2
        if length & 0x80:
            size = length & 0x7F
            length = int.from_bytes(data[at : at + size])
            at += size
        elements.append((tag, data[at : at + length]))
        at += length
    return elements


def _time(tag: int, value: bytes) -> datetime:
    year = (
        "%y" if tag == _UTC_TIME else "%Y"
    )  # Python's %y takes 69 to 99 for the last century; ASN.1 from 50
    return datetime.strptime(value.decode("ascii"), f"{year}%m%d%H%M%SZ").replace(tzinfo=UTC)
