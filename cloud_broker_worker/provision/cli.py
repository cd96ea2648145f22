"""`cloud-broker-worker broker …`. In: argv. Out: files, and lines on standard output."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from datetime import UTC, datetime

from cloud_broker_worker.broker_texts import emqx_acl_text
from cloud_broker_worker.provision import actions
from cloud_broker_worker.provision.folder import BrokerFolder
from cloud_broker_worker.provision.revocation import revoke
from cloud_broker_worker.provision.roster import Member, Proof, Roster
from cloud_broker_worker.provision.settings import (
    ADDED_ROLES,
    DEFAULT_FILE,
    AddSettings,
    BrokerFolderSettings,
    InitSettings,
    MemberSettings,
    RotateServerSettings,
    RotateSettings,
)
from runtime.command_line import Command
from runtime.settings import load
from schemas.topics import Role

_WARN_DAYS = 30

USES = {
    Role.AGENT: "edge-agent run --credentials {file}",
    Role.WORKER: "cloud-broker-worker run --credentials {file}",
    Role.CLIENT: "mosquitto_pub --cafile {file} --cert {file} --key {file}",
    Role.OPERATOR: "cloud-broker-worker monitor --credentials {file}",
    Role.HOME_ASSISTANT: "cloud-broker-worker home-assistant run --credentials {file}",
}


def commands(prog: str) -> dict[str, Command]:
    """The commands below `broker`."""
    init = functools.partial(_init, f"{prog} init")
    table = {"init": Command("set up a Mosquitto with TLS, ready for `mosquitto -c`", init)}
    for word, role in ADDED_ROLES.items():
        article = "an" if role.value[0] in "aeiou" else "a"
        summary = f"let {article} {role.value} in: makes the one file to carry there"
        table[word] = Command(summary, functools.partial(_add, f"{prog} {word}", role))
    others = {
        "list": ("show who is let in, and until when", _list),
        "rotate": ("make new credentials for a member", _rotate),
        "rotate-server": ("make a new certificate for the broker itself", _rotate_server),
        "revoke": ("shut a member out, at once", _revoke),
        "emqx-acl": ("print the access list for EMQX instead of Mosquitto", _emqx_acl),
    }
    for word, (summary, run) in others.items():
        table[word] = Command(summary, functools.partial(run, f"{prog} {word}"))
    return table


def _init(prog: str, argv: list[str]) -> None:
    settings = load(InitSettings, argv, prog=prog, default_file=DEFAULT_FILE)
    folder = BrokerFolder(settings.folder)
    wanted = actions.NewBroker(
        hosts=settings.host,
        port=settings.port,
        bind_address=settings.bind_address,
        topic_root=settings.topic_root,
        proof=Proof.PASSWORDS if settings.passwords else Proof.CERTIFICATES,
        days=settings.days,
    )
    made = actions.init(folder, wanted)
    print(
        f"broker in {folder.path}" if made else f"broker in {folder.path} was there already; nothing changed"
    )
    print(f"run it:      mosquitto -c {folder.mosquitto / 'mosquitto.conf'}")
    print("add a board: cloud-broker-worker broker add-agent NAME")


def _add(prog: str, role: Role, argv: list[str]) -> None:
    settings = load(AddSettings, argv, prog=prog, default_file=DEFAULT_FILE)
    file = actions.add(BrokerFolder(settings.folder), settings.name, role, settings.days)
    print(f"{role.value} {settings.name} is let in; move this file there, and nowhere else: {file}")
    print(f"use it: {USES[role].format(file=file.name)}")


def _rotate(prog: str, argv: list[str]) -> None:
    settings = load(RotateSettings, argv, prog=prog, default_file=DEFAULT_FILE)
    folder = BrokerFolder(settings.folder)
    file = actions.rotate(folder, settings.name, settings.days, at_once=settings.at_once)
    print(f"new credentials for {settings.name}; move this file there: {file}")
    old = folder.load().member(settings.name).certificates[:-1]
    if old and old[-1].revoked is None:
        print(f"the old ones are good until {old[-1].until:%Y-%m-%d}; --at-once revokes them")


def _rotate_server(prog: str, argv: list[str]) -> None:
    settings = load(RotateServerSettings, argv, prog=prog, default_file=DEFAULT_FILE)
    until = actions.rotate_server(BrokerFolder(settings.folder), settings.days)
    print(f"the broker's certificate is good until {until:%Y-%m-%d}; members notice nothing")


def _revoke(prog: str, argv: list[str]) -> None:
    settings = load(MemberSettings, argv, prog=prog, default_file=DEFAULT_FILE)
    if revoke(BrokerFolder(settings.folder), settings.name):
        print(f"{settings.name} is shut out, and its connection has ended")
    else:
        print(f"{settings.name} is revoked; the broker does not run, and will refuse it when it starts")


def _list(prog: str, argv: list[str]) -> None:
    settings = load(BrokerFolderSettings, argv, prog=prog, default_file=DEFAULT_FILE)
    folder = BrokerFolder(settings.folder)
    with folder.locked():
        roster, until = folder.load(), folder.load_authority().until
    for line in lines(roster, until, datetime.now(UTC)):
        print(line)


def _emqx_acl(prog: str, argv: list[str]) -> None:
    settings = load(BrokerFolderSettings, argv, prog=prog, default_file=DEFAULT_FILE)
    folder = BrokerFolder(settings.folder)
    with folder.locked():
        print(emqx_acl_text(folder.plan(folder.load())), end="")


def lines(roster: Roster, authority_until: datetime, now: datetime) -> Iterator[str]:
    """Who is let in and who is not any more, one line each, the broker and its authority first."""
    width = max([len("authority"), *(len(member.name) for member in roster.members)])
    yield f"{'authority':<{width}}  {'':<8}  {_until(authority_until, now)}"
    yield f"{'broker':<{width}}  {'':<8}  {_until(roster.server.until, now)}"
    for member in sorted(roster.members, key=lambda m: (m.role.value, m.name, m.revoked is not None)):
        yield f"{member.name:<{width}}  {member.role.value:<8}  {_state(member, now)}"


def _state(member: Member, now: datetime) -> str:
    if member.revoked is not None:
        return f"revoked {member.revoked:%Y-%m-%d}"
    if not member.certificates:
        return "password"
    return _until(member.certificates[-1].until, now)


def _until(until: datetime, now: datetime) -> str:
    days = (until - now).days
    if until < now:
        return f"EXPIRED {until:%Y-%m-%d}"
    return f"until {until:%Y-%m-%d}" + (f", {days} days left" if days < _WARN_DAYS else "")
