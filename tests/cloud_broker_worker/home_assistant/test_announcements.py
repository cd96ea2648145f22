"""Which discovery messages are published, and when: plain values, no broker."""

from __future__ import annotations

import pytest

from cloud_broker_worker.home_assistant.announcements import Announcements
from schemas.errors import WireError
from schemas.home_assistant import DEFAULT_PREFIX, Device, discovery
from schemas.messages import AgentStatus, Presence, WorkerStatus
from schemas.topics import Role, Topics

TOPICS = Topics()
BOARD, CLOUD = Device(Role.AGENT, "board-7"), Device(Role.WORKER, "cloud-1")
ONLINE = AgentStatus(state=Presence.ONLINE, boot=1, model="draft", worker="cloud-1")
OFFLINE = AgentStatus(state=Presence.OFFLINE, boot=1)
CONFIG = discovery(TOPICS, BOARD, ONLINE)


def announcements() -> Announcements:
    return Announcements(TOPICS, DEFAULT_PREFIX)


def hear(to: Announcements, status: AgentStatus | WorkerStatus | None, *, retained: bool = False) -> None:
    device = CLOUD if isinstance(status, WorkerStatus) else BOARD
    to.hear_status(
        device.status_topic(TOPICS), b"" if status is None else status.to_bytes(), retained=retained
    )


def publish_all(of: Announcements, now_s: float = 0.0) -> dict[str, bytes]:
    due = of.due(now_s)
    for topic, payload in due.items():
        of.published(topic, payload)
    return due


def test_an_agent_that_comes_online_is_announced_once():
    heard = announcements()
    hear(heard, ONLINE)
    assert publish_all(heard) == {BOARD.config_topic(): CONFIG}
    hear(heard, ONLINE)
    hear(heard, ONLINE.model_copy(update={"worker": None, "boot": 2}))
    assert publish_all(heard) == {}
    assert heard.next_at_s(0.0) is None


def test_a_worker_is_announced_with_its_beats_and_again_only_when_they_change_it():
    heard = announcements()
    beat = WorkerStatus(state=Presence.ONLINE, boot=1, model="target", load=0.1)
    hear(heard, beat)
    assert publish_all(heard) == {CLOUD.config_topic(): discovery(TOPICS, CLOUD, beat)}
    hear(heard, beat.model_copy(update={"load": 0.9, "sessions": 3}))
    assert publish_all(heard) == {}
    hear(heard, beat.model_copy(update={"model": "other"}))
    assert set(publish_all(heard)) == {CLOUD.config_topic()}


def test_what_a_broker_tells_anew_after_a_connect_is_announced_again():
    heard = announcements()
    hear(heard, ONLINE)
    publish_all(heard)
    hear(heard, ONLINE, retained=True)
    assert publish_all(heard) == {BOARD.config_topic(): CONFIG}


def test_who_leaves_stays_announced_as_it_was():
    heard = announcements()
    hear(heard, ONLINE)
    publish_all(heard)
    hear(heard, OFFLINE)
    assert publish_all(heard) == {}
    hear(heard, OFFLINE, retained=True)
    assert publish_all(heard) == {BOARD.config_topic(): CONFIG}


def test_who_is_first_heard_of_when_it_is_gone_is_announced_all_the_same():
    heard = announcements()
    hear(heard, OFFLINE, retained=True)
    assert publish_all(heard) == {BOARD.config_topic(): discovery(TOPICS, BOARD, OFFLINE)}


def test_who_is_revoked_is_removed():
    heard = announcements()
    hear(heard, ONLINE)
    hear(heard, None)
    assert publish_all(heard) == {BOARD.config_topic(): b""}
    hear(heard, None)
    assert publish_all(heard) == {}


def test_all_are_announced_again_once_home_assistant_has_started_but_not_before_the_time():
    heard = announcements()
    hear(heard, ONLINE)
    publish_all(heard)
    heard.again(10.0)
    assert heard.due(9.9) == {}
    assert heard.next_at_s(9.9) == 10.0
    assert publish_all(heard, 10.0) == {BOARD.config_topic(): CONFIG}
    assert publish_all(heard, 11.0) == {}


def test_a_removal_that_waits_is_not_undone_by_a_birth():
    heard = announcements()
    hear(heard, ONLINE)
    hear(heard, None)
    heard.again(0.0)
    assert publish_all(heard, 1.0) == {BOARD.config_topic(): b""}


def test_what_could_not_be_published_waits_and_the_newest_takes_its_place():
    heard = announcements()
    hear(heard, ONLINE)
    (topic,) = heard.due(0.0)
    newer = ONLINE.model_copy(update={"model": "newer"})
    hear(heard, newer)
    heard.published(topic, CONFIG)  # that was the older one
    assert heard.next_at_s(0.0) == 0.0
    assert publish_all(heard) == {topic: discovery(TOPICS, BOARD, newer)}


def test_a_kept_message_goes_once_it_is_clear_that_its_device_has_no_status():
    heard = announcements()
    heard.hear_kept(BOARD.config_topic(), CONFIG, 0.0)
    assert heard.due(1.0) == {}
    assert heard.next_at_s(1.0) == 2.0
    assert publish_all(heard, 2.0) == {BOARD.config_topic(): b""}


def test_a_kept_message_stays_whose_device_has_a_status():
    heard = announcements()
    hear(heard, ONLINE, retained=True)
    heard.hear_kept(BOARD.config_topic(), CONFIG, 0.0)
    assert publish_all(heard, 2.0) == {BOARD.config_topic(): CONFIG}


@pytest.mark.parametrize("payload", [b"", b"{}", discovery(Topics("other/v1"), BOARD, ONLINE)])
def test_a_kept_message_of_somebody_else_stays(payload):
    heard = announcements()
    heard.hear_kept(BOARD.config_topic(), payload, 0.0)
    assert publish_all(heard, 2.0) == {}


@pytest.mark.parametrize("payload", [b"{", b'{"state": "maybe", "boot": 1}', b"[]"])
def test_a_broken_status_is_refused_and_changes_nothing(payload):
    heard = announcements()
    hear(heard, ONLINE)
    publish_all(heard)
    with pytest.raises(WireError):
        heard.hear_status(BOARD.status_topic(TOPICS), payload, retained=False)
    assert publish_all(heard) == {}
