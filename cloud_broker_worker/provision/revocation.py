"""Shuts a member out, at once and for good. In: a name. Out: a broker that knows it no more."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime, timedelta

from cloud_broker_worker.broker import BrokerPlan, acl_text
from cloud_broker_worker.provision import live
from cloud_broker_worker.provision.actions import make_probe, renew
from cloud_broker_worker.provision.authority import Authority
from cloud_broker_worker.provision.folder import BrokerFolder
from cloud_broker_worker.provision.roster import Member, Roster, without_certificates
from runtime.credentials import Credentials
from schemas.errors import HunchError, LinkError
from schemas.topics import TOPIC_RULES, Role, Topics

_INTERIM = timedelta(minutes=10)


def revoke(folder: BrokerFolder, name: str) -> bool:
    """Shut a member out. False: the broker does not run, and will refuse the member when it starts.

    While the broker runs, this has three steps, because it looks at a certificate only as a connection
    begins, and because what the member has retained would outlive it:

    1. The certificate is revoked; all rights are gone but that to its own retained status.
    2. We connect in its name, which ends its connection, and empty that status.
    3. The name is unknown.

    Raises LinkError where the broker runs and cannot be made to end the connection; the files are written.
    """
    with folder.locked():
        roster, authority = folder.load(), folder.load_authority()
        now = datetime.now(UTC)
        member = without_certificates(roster.member(name), now=now)
        interim, successor = renew(roster, authority, member, now + _INTERIM)
        probe, roster = make_probe(roster, authority)
        gone = without_certificates(interim, now=now).model_copy(
            update={"revoked": now, "password_hash": None}
        )
        final = roster.with_changed(gone)
        plan = folder.plan(final)
        if live.running_process(plan) is None:
            folder.save(final, authority)
            return False
        try:
            _end_connection(folder, roster.with_changed(interim), authority, successor, probe)
        except HunchError as error:
            _finish(folder, final, authority, plan)
            raise LinkError(
                f"{name!r} is revoked, but its connection may still be up: {error}; restart the broker"
            ) from error
        _finish(folder, final, authority, plan)
        return True


def _end_connection(
    folder: BrokerFolder,
    roster: Roster,
    authority: Authority,
    successor: Credentials,
    probe: Credentials | None,
) -> None:
    plan = folder.plan(roster)
    member = roster.member(successor.name)
    status = retained_topics(roster, member)
    others = tuple(user for user in plan.users if user.name != member.name)
    rights = "".join(f"topic write {topic}\n" for topic in status)
    acl = acl_text(replace(plan, users=others))
    folder.save(roster, authority, acl=f"{acl}\nuser {member.name}\n{rights}")
    live.reload(plan)
    if probe is not None:
        live.wait_until_refused(plan, probe)
    live.take_over(plan, successor, clear=status)


def _finish(folder: BrokerFolder, final: Roster, authority: Authority, plan: BrokerPlan) -> None:
    folder.save(final, authority)
    live.reload(plan)


def retained_topics(roster: Roster, member: Member) -> tuple[str, ...]:
    """The retained topics that only this member writes: its status."""
    if member.role not in {Role.AGENT, Role.WORKER}:
        return ()
    topics = Topics(roster.topic_root)
    filters = [
        topics.filter_for(rule, member.role, member.name)
        for rule in TOPIC_RULES
        if rule.retained and member.role in rule.writers
    ]
    return tuple(topic for topic in filters if "+" not in topic)
