"""Both ends' certificates: whether they are trusted, and for how long. In: an address, files. Out: findings."""

from __future__ import annotations

import dataclasses
import ssl
from datetime import UTC, datetime

from runtime.certificate_dates import read_validity
from runtime.checkup.checks import Finding, failed, from_error, passed, warned
from runtime.checkup.sockets import SocketAddress, connected
from runtime.link import BrokerAddress, describe_failure, tls_context
from schemas.errors import ConfigurationError, LinkError

_HANDSHAKE_S = 4.0
_WARN_DAYS = 30
# OpenSSL's codes for a certificate that is not good yet, or no longer (x509_vfy.h).
_DATE_MENDS = {
    9: "set the clock of this machine; it is behind",
    10: "at the broker: cloud-broker-worker broker rotate-server; or set the clock of this machine",
}
_ROTATE = "cloud-broker-worker broker rotate {name}, and bring the new file here"


def check_brokers_certificate(address: BrokerAddress, where: SocketAddress) -> Finding:
    """Whether the broker proves who it is, and for how long it still can."""
    try:
        context = tls_context(address)
    except ConfigurationError as error:
        return failed(str(error), "give the certificate of the broker's authority (ca_file), as a PEM file")
    try:
        with connected(where, _HANDSHAKE_S) as plain:
            link = context.wrap_socket(plain, server_hostname=address.host)
    except OSError as error:
        finding = from_error(LinkError(describe_failure(address, error)))
        mend = _DATE_MENDS.get(getattr(error, "verify_code", 0))
        return finding if mend is None else failed(finding.found, mend)
    with link:
        shown, spoken = link.getpeercert() or {}, link.version()
    until = datetime.fromtimestamp(ssl.cert_time_to_seconds(str(shown["notAfter"])), UTC)
    found = f"{spoken}, the broker's certificate is good until {until:%Y-%m-%d}"
    figures = {"days_left": _days_left(until)}
    if _days_left(until) < _WARN_DAYS:
        mend = "at the broker: cloud-broker-worker broker rotate-server"
        return warned(f"{found}: {_days_left(until)} days left", mend, **figures)
    return passed(found, **figures)


def check_own_certificate(address: BrokerAddress, name: str) -> Finding:
    """Whether the own certificate is good, and its key the right one."""
    file = address.cert_file
    if file is None:
        return passed("not used; the login is by user name")
    try:  # to use them; what the authority's file is like shows with the broker's certificate
        tls_context(dataclasses.replace(address, ca_file=None))
    except ConfigurationError as error:
        return failed(str(error), "give the certificate and the key of one and the same member, as PEM files")
    validity, now = read_validity(file), datetime.now(UTC)
    figures = {"days_left": _days_left(validity.until)}
    rotate = _ROTATE.format(name=name)
    if now > validity.until:
        return failed(f"{file} has expired on {validity.until:%Y-%m-%d}", rotate, **figures)
    if now < validity.since:
        found = f"{file} is not good before {validity.since:%Y-%m-%d}, and the clock says {now:%Y-%m-%d}"
        return failed(found, "set the clock", **figures)
    found = f"its key fits, it is good until {validity.until:%Y-%m-%d}"
    if _days_left(validity.until) < _WARN_DAYS:
        return warned(f"{found}: {_days_left(validity.until)} days left", rotate, **figures)
    return passed(found, **figures)


def _days_left(until: datetime) -> int:
    return (until - datetime.now(UTC)).days
