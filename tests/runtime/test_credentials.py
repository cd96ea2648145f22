"""The file that is carried to a member: what it says, what overrides it, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from edge_agent.settings import AgentSettings
from runtime.credentials import Credentials, read_credentials
from runtime.settings import load
from schemas.errors import ConfigurationError

PEM = "-----BEGIN {0}-----\nAAAA\n-----END {0}-----"
BY_CERTIFICATE = Credentials(
    name="pi-7",
    role="agent",
    broker="mqtts://broker.example:8884",
    topic_root="farm/v1",
    authority=PEM.format("CERTIFICATE"),
    certificate=PEM.format("CERTIFICATE"),
    key=PEM.format("PRIVATE KEY"),
)
BY_PASSWORD = Credentials("pi-7", "agent", "mqtts://broker.example:8884", "farm/v1", "CA", password="secret")


def write(folder: Path, text: str) -> Path:
    file = folder / "pi-7.toml"
    file.write_text(text)
    return file


def settings(tmp_path: Path, file: Path, *more: str) -> AgentSettings:
    argv = ["--credentials", str(file), "--model", "m.gguf", *more]
    return load(AgentSettings, argv, prog="edge-agent", default_file=tmp_path / "none")


@pytest.mark.parametrize("credentials", [BY_CERTIFICATE, BY_PASSWORD], ids=["certificate", "password"])
def test_every_field_round_trips(credentials, tmp_path):
    found = read_credentials(write(tmp_path, credentials.to_toml()))
    stripped = {name: value and value.strip() for name, value in vars(found).items()}
    assert stripped == vars(credentials)


def test_the_own_certificate_comes_before_the_authoritys_since_openssl_takes_the_first():
    text = BY_CERTIFICATE.to_toml()
    assert text.index("certificate =") < text.index("authority =")


def test_a_certificate_fills_in_all_that_a_connection_needs(tmp_path):
    file = write(tmp_path, BY_CERTIFICATE.to_toml())
    found = settings(tmp_path, file)
    address = found.broker_address()
    assert (found.name, found.topic_root) == ("pi-7", "farm/v1")
    assert (address.host, address.port, address.client_id) == ("broker.example", 8884, "pi-7")
    assert address.ca_file == address.cert_file == address.key_file == file
    assert address.uses_tls
    assert address.password is None


def test_a_password_fills_in_the_user_and_still_demands_tls(tmp_path):
    address = settings(tmp_path, write(tmp_path, BY_PASSWORD.to_toml())).broker_address()
    assert (address.username, address.password, address.cert_file) == ("pi-7", "secret", None)
    assert address.uses_tls


def test_what_is_set_elsewhere_wins_over_the_credentials(tmp_path):
    file = write(tmp_path, BY_CERTIFICATE.to_toml())
    address = settings(tmp_path, file, "--broker", "mqtts://10.0.0.1:1234").broker_address()
    assert (address.host, address.port) == ("10.0.0.1", 1234)


def test_another_name_than_the_certificates_is_refused_since_the_broker_would_not_know_it(tmp_path):
    file = write(tmp_path, BY_CERTIFICATE.to_toml())
    with pytest.raises(ConfigurationError, match=r"is for 'pi-7', but the name is set to 'pi-8'"):
        settings(tmp_path, file, "--name", "pi-8")


@pytest.mark.parametrize(
    "text",
    [
        "",
        "name = [",
        'name = "pi-7"',
        BY_CERTIFICATE.to_toml() + 'password = "both"\n',
        BY_CERTIFICATE.to_toml().replace("key = ", "other = "),
        BY_CERTIFICATE.to_toml().replace('role = "agent"', "role = 7"),
        BY_CERTIFICATE.to_toml() + "#" * 70_000,
        "\0",
    ],
)
def test_a_file_that_is_no_credentials_is_one_clear_line(text, tmp_path):
    with pytest.raises(ConfigurationError, match="holds no credentials") as raised:
        settings(tmp_path, write(tmp_path, text))
    assert "\n" not in str(raised.value)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(ConfigurationError, match=r"cannot read credentials .*none\.toml: No such file"):
        settings(tmp_path, tmp_path / "none.toml")


def test_neither_key_nor_password_shows_in_a_traceback():
    assert "PRIVATE" not in repr(BY_CERTIFICATE)
    assert "secret" not in repr(BY_PASSWORD)
