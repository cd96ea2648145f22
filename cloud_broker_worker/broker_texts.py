"""The texts that make a broker let nobody do more than the design says. In: a plan. Out: texts. Pure.

Who may do what comes from `schemas.topics`.
"""

from __future__ import annotations

from dataclasses import dataclass

from cloud_broker_worker.broker_plan import BrokerPlan, BrokerTls, BrokerUser
from schemas.home_assistant import DEFAULT_PREFIX
from schemas.topics import TOPIC_RULES, Role, Topics

# What the connections of both ends announce as well (runtime.mqtt): four times the longest session opening.
MAX_PACKET_BYTES = 262_144

_ORIGIN = "Generated from schemas/topics.py; changes here are overwritten."
_EMQX_ACTIONS = {"read": "subscribe", "write": "publish", "readwrite": "all"}


def config_text(plan: BrokerPlan) -> str:
    """The text of mosquitto.conf."""
    return "\n".join([*_general_lines(plan), *_listener_lines(plan), ""])


def acl_text(plan: BrokerPlan) -> str:
    """The text of the access list: each user's topics by name, none for anyone else.

    No `pattern` lines: they hold for every user whatever the role, so an agent named like a worker could
    speak as that worker.
    """
    topics = Topics(plan.root)
    blocks = [
        "\n".join(
            [
                f"user {user.name}",
                *(f"topic {grant.access} {grant.topics}" for grant in _grants(topics, user)),
            ]
        )
        for user in plan.users
    ]
    return "\n\n".join([f"# {_ORIGIN}", *blocks]) + "\n"


def emqx_acl_text(plan: BrokerPlan) -> str:
    """The same access list as Erlang terms, for EMQX (authorization source `file`), where all else is denied.

    By name and without placeholders, for the same reason.
    """
    topics = Topics(plan.root)
    rules = [
        f'{{allow, {{user, "{user.name}"}}, {_EMQX_ACTIONS[grant.access]}, ["{grant.topics}"]}}.'
        for user in plan.users
        for grant in _grants(topics, user)
    ]
    return "\n".join([f"%% {_ORIGIN}", *rules, "{deny, all}.", ""])


def _general_lines(plan: BrokerPlan) -> list[str]:
    return [
        "# One set of rules for all listeners: with `true`, one without its own rules would be open to all.",
        "per_listener_settings false",
        "allow_anonymous false",
        *([f"password_file {plan.password_file.absolute()}"] if plan.needs_passwords else []),
        f"acl_file {plan.acl_file.absolute()}",
        "",
        "# Off by default; replies then wait 40 ms for an acknowledgement.",
        "set_tcp_nodelay true",
        "",
        "# Of the whole packet; told to MQTT 5 clients, so that they can check before they send.",
        f"max_packet_size {MAX_PACKET_BYTES}",
        "max_inflight_messages 64",
        "# For each client; QoS 0 counts too once its socket is full. What is beyond is dropped.",
        "max_queued_messages 1000",
        "max_queued_bytes 4194304",
        "# Nobody here keeps a session while away; one that is left behind must not grow for ever.",
        "persistent_client_expiration 1h",
        "",
        *_persistence_lines(plan),
        *([f"pid_file {plan.pid_file.absolute()}"] if plan.tls is not None else []),
        "log_dest stderr",
        "log_type error",
        "log_type warning",
        "log_type notice",
        "",
    ]


def _persistence_lines(plan: BrokerPlan) -> list[str]:
    if not plan.persistent:
        return ["persistence false"]
    return ["persistence true", f"persistence_location {plan.data_folder.absolute()}/"]


def _listener_lines(plan: BrokerPlan) -> list[str]:
    """Where the broker listens, and whether in the clear or encrypted.

    A listener's own options must come after its `listener` line: before it, Mosquitto 2.0 applies them to a
    default listener, which that opens on port 1883 of every interface, without a word.
    """
    return [
        f"listener {plan.port} {plan.bind_address}",
        "# Otherwise a user could take over the connection of another by using its client id.",
        "use_username_as_clientid true",
        *([] if plan.tls is None else _tls_lines(plan.tls)),
    ]


def _tls_lines(tls: BrokerTls) -> list[str]:
    lines = [
        "tls_version tlsv1.2",  # this and newer
        f"cafile {tls.authority_file.absolute()}",
        f"certfile {tls.certificate_file.absolute()}",
        f"keyfile {tls.key_file.absolute()}",
    ]
    if not tls.members_show_certificates:
        return lines
    return [
        *lines,
        f"crlfile {tls.revocation_file.absolute()}",
        "require_certificate true",
        "# The user name is the certificate's common name, whatever the client says.",
        "use_identity_as_username true",
    ]


@dataclass(frozen=True)
class _Grant:
    """What a user may do (read, write or readwrite), and the filter of the topics it may be done with."""

    access: str
    topics: str


def _grants(topics: Topics, user: BrokerUser) -> list[_Grant]:
    """All that one user may do."""
    if user.role is Role.OPERATOR:
        return [_Grant("read", topics.everything())]
    grants = []
    for rule in TOPIC_RULES:
        may_write, may_read = user.role in rule.writers, user.role in rule.readers
        if may_write or may_read:
            access = "readwrite" if may_write and may_read else "write" if may_write else "read"
            grants.append(_Grant(access, topics.filter_for(rule, user.role, user.name)))
    if user.role is Role.HOME_ASSISTANT:
        # It publishes there too: its birth, and the end of what a user deletes.
        grants.append(_Grant("readwrite", f"{DEFAULT_PREFIX}/#"))
    return grants
