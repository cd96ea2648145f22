"""What can be done with a broker's folder. In: names, roles. Out: files, and a line for the operator.

Each action is: read the roster, change it, write all that is made from it, tell the broker.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from cloud_broker_worker.broker import BrokerUser, find_program, generate_password, hash_password
from cloud_broker_worker.provision import live
from cloud_broker_worker.provision.authority import Authority, Issued
from cloud_broker_worker.provision.folder import BrokerFolder
from cloud_broker_worker.provision.roster import (
    Certificate,
    Member,
    Proof,
    Roster,
    without_certificates,
)
from runtime.credentials import Credentials
from schemas.errors import ConfigurationError
from schemas.topics import Role

LOCAL_HOSTS = ("localhost", "127.0.0.1", "::1")  # `live` connects from the broker's own machine


@dataclass(frozen=True)
class NewBroker:
    """What `init` makes. `hosts` are all names and addresses under which members reach the broker."""

    hosts: tuple[str, ...]
    port: int
    bind_address: str
    topic_root: str
    proof: Proof
    days: int


def init(folder: BrokerFolder, wanted: NewBroker) -> bool:
    """Set up a broker. False: it was there already, as wanted; nothing changed.

    Raises ConfigurationError if there is another broker, or something else, in the folder.
    """
    if folder.exists:
        _check_same(folder, wanted)
        return False
    find_program("mosquitto")
    if wanted.proof is Proof.PASSWORDS:
        find_program("mosquitto_passwd")
    folder.create()
    authority = Authority.create(f"hunch authority of {wanted.hosts[0]}")
    folder.save_authority(authority)
    server = _new_server(folder, authority, wanted.hosts, wanted.bind_address, wanted.days)
    roster = Roster(
        hosts=wanted.hosts,
        port=wanted.port,
        bind_address=wanted.bind_address,
        topic_root=wanted.topic_root,
        proof=wanted.proof,
        server=server,
    )
    folder.save(roster, authority)
    return True


def add(folder: BrokerFolder, name: str, role: Role, days: int) -> Path:
    """Let someone in. Returns the file to carry there."""
    with folder.locked():
        roster, authority = folder.load(), folder.load_authority()
        member = Member(name=name, role=role)
        roster.with_added(member)  # refuses a name before anything is made for it
        member, credentials = renew(roster, authority, member, _in(days))
        folder.save(roster.with_added(member), authority)
        file = folder.save_credentials(credentials)
        live.reload(folder.plan(roster))
        return file


def rotate(folder: BrokerFolder, name: str, days: int, *, at_once: bool) -> Path:
    """Make new credentials for a member. Returns the file to carry there.

    The old certificate is good until it expires, so that the member can go on meanwhile; with `at_once` it is
    revoked and its connection ended. An old password always ends at once: there is only one.
    """
    with folder.locked():
        roster, authority = folder.load(), folder.load_authority()
        member = roster.member(name)
        if at_once:
            member = without_certificates(member, now=datetime.now(UTC))
        member, credentials = renew(roster, authority, member, _in(days))
        roster = roster.with_changed(member)
        if at_once or roster.proof is Proof.PASSWORDS:
            probe, roster = make_probe(roster, authority)
            folder.save(roster, authority)
            file = folder.save_credentials(credentials)
            _end_connection(folder, roster, credentials, probe)
            return file
        folder.save(roster, authority)
        return folder.save_credentials(credentials)


def rotate_server(folder: BrokerFolder, days: int) -> datetime:
    """Give the broker itself a new certificate of the same authority. Returns when that expires."""
    with folder.locked():
        roster, authority = folder.load(), folder.load_authority()
        server = _new_server(folder, authority, roster.hosts, roster.bind_address, days)
        folder.save(roster.model_copy(update={"server": server}), authority)
        live.reload(folder.plan(roster))
        return server.until


def renew(
    roster: Roster, authority: Authority, member: Member, until: datetime
) -> tuple[Member, Credentials]:
    """The member with a new certificate or password, and the credentials that hold it."""
    issued: Issued | None = None
    password: str | None = None
    if roster.proof is Proof.CERTIFICATES:
        issued = authority.issue_member(member.name, until)
        certificates = (*member.certificates, _as_entry(issued))
        member = member.model_copy(update={"certificates": certificates})
    else:
        password = generate_password()
        hashed = hash_password(BrokerUser(member.name, member.role, password))
        member = member.model_copy(update={"password_hash": hashed})
    host = f"[{roster.hosts[0]}]" if ":" in roster.hosts[0] else roster.hosts[0]
    return member, Credentials(
        name=member.name,
        role=member.role.value,
        broker=f"mqtts://{host}:{roster.port}",
        topic_root=roster.topic_root,
        authority=authority.certificate,
        certificate=None if issued is None else issued.certificate,
        key=None if issued is None else issued.key,
        password=password,
    )


def make_probe(roster: Roster, authority: Authority) -> tuple[Credentials | None, Roster]:
    """Credentials that were never good: once the broker refuses them, it has read the revocation list.

    None with passwords: that the new password is taken shows the same.
    """
    if roster.proof is Proof.PASSWORDS:
        return None, roster
    nobody = Member(name="hunch-probe", role=Role.AGENT)
    nobody, credentials = renew(roster, authority, nobody, _in(1))
    return credentials, roster.with_spent(*nobody.certificates)


def _end_connection(
    folder: BrokerFolder, roster: Roster, successor: Credentials, probe: Credentials | None
) -> None:
    plan = folder.plan(roster)
    if live.reload(plan):
        if probe is not None:
            live.wait_until_refused(plan, probe)
        live.take_over(plan, successor)


def _new_server(
    folder: BrokerFolder, authority: Authority, hosts: tuple[str, ...], bind_address: str, days: int
) -> Certificate:
    all_hosts = dict.fromkeys((*hosts, live.local_host(bind_address), *LOCAL_HOSTS))
    issued = authority.issue_server(tuple(all_hosts), _in(days))
    folder.save_server(issued.certificate, issued.key)
    return _as_entry(issued)


def _check_same(folder: BrokerFolder, wanted: NewBroker) -> None:
    roster = folder.load()
    for field in ("hosts", "port", "bind_address", "topic_root", "proof"):
        if getattr(roster, field) != getattr(wanted, field):
            raise ConfigurationError(
                f"{folder.path} already holds a broker with another {field}; give another folder"
            )


def _as_entry(issued: Issued) -> Certificate:
    return Certificate(serial=issued.serial, until=issued.until)


def _in(days: int) -> datetime:
    return datetime.now(UTC) + timedelta(days=days)
