"""Show a fleet in a real Home Assistant. In: how to start one. Out: what it shows, and an exit code.

Not part of `make test`: Home Assistant wants a newer Python than Hunch and brings a hundred packages.
docs/home-assistant.md says how to run it. Everything else here is real, too: Mosquitto, models, the announcer.
"""
# ruff: noqa: T201  a program for a terminal

from __future__ import annotations

import argparse
import contextlib
import json
import re
import shlex
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from cloud_broker_worker.home_assistant.announcer import Announcer
from cloud_broker_worker.home_assistant.purge import purge
from cloud_broker_worker.home_assistant.settings import HomeAssistantSettings, PurgeSettings
from cloud_broker_worker.private_broker import _free_port
from cloud_broker_worker.settings import WorkerSettings
from cloud_broker_worker.worker import Worker
from edge_agent.agent import Agent
from edge_agent.settings import AgentSettings
from schemas.home_assistant import DEFAULT_PREFIX, Device
from schemas.messages import Prompt
from schemas.topics import Role
from tests.end_to_end.stage import DRAFT_MODEL, TARGET_MODEL
from tests.fleet import Fleet

MEMBERS = {
    "board.7": Role.AGENT,  # a name that discovery topics cannot hold as it is
    "cloud-1": Role.WORKER,
    "announcer": Role.HOME_ASSISTANT,
    "home": Role.HOME_ASSISTANT,
}
DEVICES = (Device(Role.AGENT, "board.7"), Device(Role.WORKER, "cloud-1"))
NUM_ENTITIES = 21
NOTHING = {"unknown", "unavailable"}
START_S = 300.0  # the first start installs what its integrations need
PATIENCE_S = 60.0
ABOUT_US = ("mqtt", "Template variable", "discovery payload")


class Home:
    """A running Home Assistant, spoken to as its own frontend does."""

    def __init__(self, base: str) -> None:
        self._base = base
        self._token: str | None = None

    def call(self, path: str, body: Any = None, *, kind: str = "application/json") -> Any:
        """GET, or POST where there is a body."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        headers = {"Content-Type": kind} | ({"Authorization": f"Bearer {self._token}"} if self._token else {})
        request = urllib.request.Request(self._base + path, data, headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                text = answer.read().decode()
                return json.loads(text) if answer.headers.get_content_type() == "application/json" else text
        except urllib.error.HTTPError as error:
            raise SystemExit(f"{path}: {error}: {error.read().decode()}") from error

    def up(self) -> bool:
        """Whether it answers."""
        with contextlib.suppress(OSError):
            return bool(self.call("/api/onboarding"))
        return False

    def move_in(self) -> None:
        """Make the first user, and become it."""
        client = self._base + "/"
        user = {"client_id": client, "name": "n", "username": "u", "password": "p", "language": "en"}
        code = self.call("/api/onboarding/users", user)["auth_code"]
        grant = {"grant_type": "authorization_code", "code": code, "client_id": client}
        form = urllib.parse.urlencode(grant).encode()
        kind = "application/x-www-form-urlencoded"
        self._token = self.call("/auth/token", form, kind=kind)["access_token"]

    def add_mqtt(self, fleet: Fleet) -> None:
        """Set up its MQTT integration as a user would, with the one file of credentials in all three places."""
        flow = self.call("/api/config/config_entries/flow", {"handler": "mqtt"})
        if flow["type"] == "menu":
            flow = self.call(f"/api/config/config_entries/flow/{flow['flow_id']}", {"next_step_id": "broker"})
        answers = {
            "broker": "localhost",
            "port": fleet.port,
            "other_settings": {
                "transport": "tcp",
                "set_client_cert": True,
                "client_cert": self.upload(fleet.files["home"]),
                "client_key": self.upload(fleet.files["home"]),
                "set_ca_cert": "custom",
                "certificate": self.upload(fleet.files["home"]),
            },
        }
        done = self.call(f"/api/config/config_entries/flow/{flow['flow_id']}", answers)
        if done["type"] != "create_entry":
            raise SystemExit(f"its MQTT integration is not set up: {done}")

    def upload(self, file: Path) -> str:
        """Hand a file over; returns what it calls it."""
        bound = b"hunch-boundary"
        head = b'Content-Disposition: form-data; name="file"; filename="file.pem"'
        body = b"\r\n".join([b"--" + bound, head, b"", file.read_bytes(), b"--" + bound + b"--", b""])
        answer = self.call("/api/file_upload", body, kind=f"multipart/form-data; boundary={bound.decode()}")
        return str(answer["file_id"])

    def shown(self) -> dict[str, dict[str, Any]]:
        """Its entities of our devices, by entity id."""
        ours = json.loads(self.ask("{{ integration_entities('mqtt') | tojson }}"))
        return {state["entity_id"]: state for state in self.call("/api/states") if state["entity_id"] in ours}

    def publish(self, topic: str, payload: str, *, retain: bool) -> None:
        """Let it publish something itself."""
        self.call("/api/services/mqtt/publish", {"topic": topic, "payload": payload, "retain": retain})

    def ask(self, template: str) -> str:
        """What one of its templates renders to."""
        return str(self.call("/api/template", {"template": template}))


@contextlib.contextmanager
def running(command: list[str], config: Path) -> Iterator[Home]:
    """Home Assistant, started anew in an empty folder."""
    port = _free_port("127.0.0.1")
    (config / "configuration.yaml").write_text(
        f"http:\n  server_host: 127.0.0.1\n  server_port: {port}\napi:\nconfig:\nonboarding:\n"
    )
    with (
        (config / "output.log").open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=out) as process,
    ):
        try:
            home = Home(f"http://127.0.0.1:{port}")
            until(home.up, "Home Assistant does not start", patience_s=START_S)
            yield home
        finally:
            process.terminate()


def until(condition: Callable[[], object], otherwise: str, *, patience_s: float = PATIENCE_S) -> None:
    """Poll until it is so."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        if time.monotonic() > deadline_s:
            raise SystemExit(otherwise)
        time.sleep(0.5)


@contextlib.contextmanager
def in_a_thread(service: Announcer | Worker) -> Iterator[None]:
    """A service that runs beside us."""
    with service:
        thread = threading.Thread(target=service.run)
        thread.start()
        try:
            yield
        finally:
            service.stop()
            thread.join()


def describe(home: Home) -> None:
    """Print what is shown, device by device."""
    for entity, state in sorted(home.shown().items()):
        attributes = state["attributes"]
        classes = [attributes.get(name, "") for name in ("device_class", "state_class")]
        value = f"{state['state']} {attributes.get('unit_of_measurement', '')}"
        print(f"{entity:<36} {value:<18}", *filter(None, classes))
    fields = ("name", "manufacturer", "model", "model_id", "sw_version", "identifiers")
    wanted = ", ".join(f"device_attr(d, '{field}')" for field in fields)
    for device in DEVICES:
        print(home.ask(f"{{% set d = device_id('{device.name}') %}}{{{{ [{wanted}] }}}}"))


def check(home: Home, config: Path) -> list[str]:
    """What is wrong with what is shown."""
    states = {entity: state["state"] for entity, state in home.shown().items()}
    return [f"{entity} is {state}" for entity, state in states.items() if state in NOTHING] + complaints(
        config
    )


def complaints(config: Path) -> list[str]:
    """What it has logged about us."""
    lines = (config / "output.log").read_text(errors="replace").splitlines()
    return [
        line
        for line in lines
        if ("WARNING" in line or "ERROR" in line) and any(about in line for about in ABOUT_US)
    ]


def play(home: Home, fleet: Fleet, config: Path) -> list[str]:
    """All that a fleet does, seen from Home Assistant. Returns what was wrong."""
    cloud = WorkerSettings(credentials=fleet.files["cloud-1"], model=TARGET_MODEL, threads=1, beat_s=1.0)
    board = AgentSettings(credentials=fleet.files["board.7"], model=DRAFT_MODEL, threads=1)
    with in_a_thread(Worker(cloud)):
        with in_a_thread(Announcer(HomeAssistantSettings(credentials=fleet.files["announcer"]))):
            with Agent(board) as agent:
                until(lambda: len(home.shown()) == NUM_ENTITIES, "its devices do not appear")
                until(lambda: asked_and_shown(agent, home, config), "not all is shown")
                describe(home)
                until(lambda: deleted(home), "deleted devices stay")
                home.publish(f"{DEFAULT_PREFIX}/status", "online", retain=False)
                until(lambda: len(home.shown()) == NUM_ENTITIES, "its birth does not bring them back")
                print("deleted there, and back after its birth message")
            until(lambda: not on(home, "connection"), "an agent that left stays connected")
            assert home.shown()["sensor.board_7_speed"]["state"] == "unavailable"
            print("board.7 has left: its connection is off, its sensors are unavailable")
        removed = purge(PurgeSettings(credentials=fleet.files["announcer"]))
        print("purged:", *(f"{device.role.value} {device.name}" for device in removed))
        until(lambda: not home.shown(), "purged devices stay")
        return complaints(config)


def asked_and_shown(agent: Agent, home: Home, config: Path) -> bool:
    """Ask, and see whether all that follows shows; it may not listen to an agent's metrics yet."""
    answer, pieces = agent.answer(Prompt(id="q-1", text="I need a table for two in Oakland."))
    text = "".join(piece.text for piece in pieces)
    wrong = check(home, config)
    print(
        f"board.7 said {text!r}, {answer.usage.tokens} tokens.", f"Not yet: {wrong[0]}" if wrong else "Shown:"
    )
    return not wrong


def deleted(home: Home) -> bool:
    """Delete what is shown, and see whether nothing is; its own first birth message may come late, and undo it."""
    shown = home.shown()
    for device in DEVICES:
        if any(re.sub(r"\W", "_", device.name) in entity for entity in shown):
            home.publish(device.config_topic(), "", retain=True)
    return not shown


def on(home: Home, what: str) -> bool:
    """Whether one of the board's binary sensors is on."""
    return bool(home.shown()[f"binary_sensor.board_7_{what}"]["state"] == "on")


def main() -> int:
    """Run it all once."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--hass", required=True, help="command that starts it, such as 'hass -c FOLDER'")
    parser.add_argument("--config", required=True, type=Path, help="that folder, empty, as seen from here")
    options = parser.parse_args()
    with Fleet(MEMBERS) as fleet, running(shlex.split(options.hass), options.config) as home:
        home.move_in()
        home.add_mqtt(fleet)
        print("Home Assistant", home.call("/api/config")["version"])
        found = play(home, fleet, options.config)
    print(*found, sep="\n", file=sys.stderr)
    return bool(found)


if __name__ == "__main__":
    sys.exit(main())
