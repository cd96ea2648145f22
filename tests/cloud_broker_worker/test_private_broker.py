"""The private broker: starts, says why it does not, restarts, and never outlives who started it."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from cloud_broker_worker import broker as broker_module
from cloud_broker_worker.private_broker import PrivateBroker
from runtime.mqtt import Publication
from schemas.errors import ConfigurationError
from schemas.topics import Role, Topics
from tests.mqtt_helpers import listen, payloads, wait_for

TOPICS = Topics()


def test_a_broker_that_does_not_start_says_why_in_its_own_words(monkeypatch):
    monkeypatch.setattr(broker_module, "config_text", lambda plan: "no_such_option true\n")
    with (
        pytest.raises(ConfigurationError, match=r"ended at once; it said: .*no_such_option"),
        PrivateBroker({}),
    ):
        pass


def test_a_private_broker_is_gone_after_its_block_whatever_happened():
    with (  # noqa: PT012  the block is what is tested
        pytest.raises(KeyboardInterrupt),
        PrivateBroker({"agent-1": Role.AGENT}) as running,
    ):
        pid, folder = running.pid, running._folder
        raise KeyboardInterrupt
    assert not is_running(pid)
    assert folder is not None
    assert not folder.exists()


def test_a_restarted_broker_keeps_port_and_passwords_and_forgets_the_rest(private_broker, connect):
    broker = private_broker()
    port = broker.port
    connect("agent-1", at=broker).stop(Publication(TOPICS.agent_status("agent-1"), b"kept until the end"))
    broker.restart()
    assert broker.port == port
    inbox = listen(connect("operator-1", at=broker), TOPICS.everything())
    connect("worker-1", at=broker).publish(TOPICS.worker_metrics("worker-1"), b"first")
    assert payloads(inbox, 1) == [b"first"]


_PARENT = """
import sys, time
from cloud_broker_worker.private_broker import PrivateBroker
with PrivateBroker({}) as broker:
    print(broker.pid, broker._folder, flush=True)
    time.sleep(600)
"""


def test_a_private_broker_dies_with_a_parent_that_is_killed():
    parent = subprocess.Popen([sys.executable, "-c", _PARENT], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    with parent:
        pid, folder = parent.stdout.readline().split()
        assert is_running(int(pid))
        parent.send_signal(signal.SIGKILL)
    wait_for(lambda: not is_running(int(pid)))
    for path in [*Path(folder).iterdir(), Path(folder)]:  # the killed parent could not
        path.rmdir() if path.is_dir() else path.unlink()


def is_running(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0]
    except FileNotFoundError:
        return False
    return state != "Z"
