"""Container files, compose and Kubernetes speak of settings, ports, names and files that exist."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from cloud_broker_worker.broker_texts import MAX_PACKET_BYTES
from cloud_broker_worker.provision.settings import BrokerFolderSettings, InitSettings
from cloud_broker_worker.settings import WorkerSettings
from edge_agent.settings import AgentSettings
from runtime.settings import FileSettings
from schemas.topics import Topics

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
CONTAINERFILE = (DEPLOY / "container/Containerfile").read_text(encoding="utf-8")
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text(encoding="utf-8"))
SERVICES = COMPOSE["services"]
KUBERNETES = DEPLOY / "kubernetes"
FILES = [
    path
    for path in sorted(DEPLOY.rglob("*"))
    if path.suffix in {".yaml", ".yml", ".sh"} or path.name == "Containerfile"
]
SETTINGS: dict[str, type[FileSettings]] = {
    "HUNCH_WORKER_": WorkerSettings,
    "HUNCH_AGENT_": AgentSettings,
    "HUNCH_BROKER_": InitSettings,
}
WORKER_PORT, AGENT_PORT = 9465, 9464


def manifests() -> Iterator[dict[str, Any]]:
    kustomization = yaml.safe_load((KUBERNETES / "kustomization.yaml").read_text(encoding="utf-8"))
    for name in kustomization["resources"]:
        yield from yaml.safe_load_all((KUBERNETES / name).read_text(encoding="utf-8"))


def pod(name: str) -> dict[str, Any]:
    """The pod template of a StatefulSet."""
    (found,) = [
        each for each in manifests() if each["kind"] == "StatefulSet" and each["metadata"]["name"] == name
    ]
    template: dict[str, Any] = found["spec"]["template"]
    return template


# ----------------------------------------------------------------------------------------------- settings


def test_every_variable_that_is_set_is_a_setting() -> None:
    text = "\n".join(path.read_text(encoding="utf-8") for path in FILES)
    set_somewhere = {
        (prefix, name.lower())
        for prefix in SETTINGS
        # Set in a container file, an environment of compose, or one of Kubernetes.
        for name in re.findall(rf"(?:ENV |^ +|name: ){prefix}([A-Z_]+)", text, re.MULTILINE)
    }
    assert ("HUNCH_WORKER_", "threads") in set_somewhere
    assert ("HUNCH_AGENT_", "metrics_address") in set_somewhere
    assert [each for each in set_somewhere if each[1] not in SETTINGS[each[0]].model_fields] == []


def test_metrics_are_served_where_prometheus_kubernetes_and_health_look() -> None:
    default = WorkerSettings.model_fields["metrics_address"].default
    assert default == f"127.0.0.1:{WORKER_PORT}"
    prometheus = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text(encoding="utf-8"))
    targets = {job["job_name"]: job["static_configs"][0]["targets"] for job in prometheus["scrape_configs"]}
    assert targets == {"hunch-worker": [f"worker:{WORKER_PORT}"], "hunch-agent": [f"agent:{AGENT_PORT}"]}
    for role, port in (("worker", WORKER_PORT), ("agent", AGENT_PORT)):
        environment = SERVICES[role]["environment"]
        assert environment[f"HUNCH_{role.upper()}_METRICS_ADDRESS"] == f"0.0.0.0:{port}"
    assert CONTAINERFILE.count(f'"/opt/hunch/healthy.py", "{WORKER_PORT}"') == 1
    assert CONTAINERFILE.count(f'"/opt/hunch/healthy.py", "{AGENT_PORT}"') == 1
    assert f"HUNCH_AGENT_METRICS_ADDRESS=127.0.0.1:{AGENT_PORT}" in CONTAINERFILE
    worker = pod("worker")
    (container,) = worker["spec"]["containers"]
    assert container["ports"] == [{"name": "metrics", "containerPort": WORKER_PORT}]
    assert worker["metadata"]["annotations"]["prometheus.io/port"] == str(WORKER_PORT)
    (policy,) = [
        each
        for each in manifests()
        if each["kind"] == "NetworkPolicy" and each["metadata"]["name"] == "worker"
    ]
    assert policy["spec"]["ingress"][0]["ports"] == [{"port": WORKER_PORT}]


def test_the_broker_listens_where_members_come_to_and_stands_where_it_is_set_up() -> None:
    port = InitSettings.model_fields["port"].default
    folder = BrokerFolderSettings.model_fields["folder"].default
    assert SERVICES["broker"]["ports"][0].endswith(f":{port}:{port}")
    assert f"-p {port} " in SERVICES["ask"]["entrypoint"]
    assert f'"{folder}/mosquitto/mosquitto.conf"' in CONTAINERFILE
    assert f"broker:{folder}" in SERVICES["init"]["volumes"]
    assert str(port) in (KUBERNETES / "emqx.conf").read_text(encoding="utf-8")


def test_asking_uses_the_topics_of_the_agent_that_is_set_up() -> None:
    topics = Topics()
    script = (DEPLOY / "container/init.sh").read_text(encoding="utf-8")
    assert "for role in worker agent client; do" in script
    assert f"-t {topics.prompt('agent')} " in SERVICES["ask"]["entrypoint"]
    assert f"-e {topics.completion('agent', 'q1')} " in SERVICES["ask"]["entrypoint"]


# ----------------------------------------------------------------------------------------------- files


def test_what_an_image_copies_is_there_and_reaches_the_build() -> None:
    kept = {
        line[1:]
        for line in (ROOT / ".dockerignore").read_text(encoding="utf-8").splitlines()
        if line[:1] == "!"
    }
    copied = [
        source
        for line in re.findall(r"^COPY (?!--from)(.*)$", CONTAINERFILE, re.MULTILINE)
        for source in line.split()[:-1]
    ]
    assert len(copied) > 5
    for source in copied:
        assert (ROOT / source).exists(), source
        assert any(source == name or source.startswith(f"{name}/") for name in kept), source


def test_an_image_holds_every_package_that_is_installed_elsewhere() -> None:
    packages = re.search(r"^include = \[(.*)\]$", (ROOT / "pyproject.toml").read_text(), re.MULTILINE)
    assert packages is not None
    for name in re.findall(r'"(\w+)\*"', packages[1]):
        assert f"COPY {name} {name}\n" in CONTAINERFILE


def test_compose_mounts_what_is_there_and_builds_targets_that_exist() -> None:
    targets = set(re.findall(r"^FROM \S+ AS (\w+)$", CONTAINERFILE, re.MULTILINE))
    for name, service in SERVICES.items():
        if "build" in service:
            assert service["build"]["target"] in targets
            assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()
        for volume in service.get("volumes", []):
            source = re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", volume).split(":")[0]
            assert (DEPLOY / source).exists() if source[0] == "." else source in COMPOSE["volumes"], name


# --------------------------------------------------------------------------------------------- hardening


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_can_change_nothing_but_its_volumes(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert not service.get("privileged")
    for port in service.get("ports", []):
        assert port.startswith(("127.0.0.1:", "${HUNCH_BIND:-127.0.0.1}:")), port


def test_every_image_ends_as_a_user_without_rights() -> None:
    stages = re.split(r"^FROM ", CONTAINERFILE, flags=re.MULTILINE)[1:]
    users = {stage.split()[2]: re.findall(r"^USER (\S+)$", stage, re.MULTILINE)[-1:] for stage in stages}
    assert users == {
        "build": [],
        "runtime": ["10001:10001"],
        "agent": [],
        "worker": [],
        "broker": ["10001:10001"],
    }


@pytest.mark.parametrize("name", ["worker", "emqx"])
def test_a_pod_fits_the_restricted_standard(name: str) -> None:
    spec = pod(name)["spec"]
    assert spec["securityContext"]["runAsNonRoot"] is True
    assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert spec["automountServiceAccountToken"] is False
    for container in spec["containers"]:
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}


def test_a_worker_pod_is_known_by_its_own_name() -> None:
    (container,) = pod("worker")["spec"]["containers"]
    environment = {each["name"]: each for each in container["env"]}
    assert environment["HUNCH_WORKER_NAME"]["valueFrom"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    assert environment["HUNCH_WORKER_CREDENTIALS"]["value"] == "/credentials/$(HUNCH_WORKER_NAME).toml"
    names = list(environment)
    assert names.index("HUNCH_WORKER_NAME") < names.index(
        "HUNCH_WORKER_CREDENTIALS"
    )  # else it is not filled in


def test_emqx_is_as_strict_as_our_mosquitto() -> None:
    text = (KUBERNETES / "emqx.conf").read_text(encoding="utf-8")
    for line in (
        "verify = verify_peer",
        "fail_if_no_peer_cert = true",
        "peer_cert_as_username = cn",
        "peer_cert_as_clientid = cn",
        "no_match = deny",
        f'max_packet_size = "{MAX_PACKET_BYTES // 1024}KB"',
        *(f"listeners.{kind}.default.enable = false" for kind in ("tcp", "ws", "wss")),
    ):
        assert line in text


@pytest.mark.skipif(shutil.which("kubectl") is None, reason="kubectl is not installed")
def test_kubectl_puts_the_manifests_together() -> None:
    done = subprocess.run(
        ["kubectl", "kustomize", str(KUBERNETES)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    built = list(yaml.safe_load_all(done.stdout))
    assert {each["metadata"].get("namespace", each["metadata"]["name"]) for each in built} == {"hunch"}
    assert len(built) == len(list(manifests())) + 1  # the generated config map
