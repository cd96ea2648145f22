"""Settings by flag, environment and file, and one clear line for what is wrong."""

from __future__ import annotations

import pytest

from edge_agent.settings import AgentSettings, GenerateSettings, Mode
from runtime.settings import load
from schemas.errors import ConfigurationError


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load settings from flags, with an environment and a file of their own."""
    for name in ("CONFIG", "MODEL", "RISK"):
        monkeypatch.delenv(f"HUNCH_AGENT_{name}", raising=False)

    def load_them(*flags, toml="", environment=(), cls=AgentSettings):
        path = tmp_path / "agent.toml"
        path.write_text(toml)
        for name, value in dict(environment).items():
            monkeypatch.setenv(name, value)
        return load(cls, list(flags), prog="edge-agent", default_file=path)

    return load_them


def test_a_flag_outweighs_the_environment_which_outweighs_the_file_which_outweighs_the_default(loaded):
    toml = 'model = "file.gguf"\nrisk = 0.1\nk = 4\nseed = 1\n'
    environment = {"HUNCH_AGENT_RISK": "0.2", "HUNCH_AGENT_SEED": "2"}
    settings = loaded("--risk", "0.3", toml=toml, environment=environment)
    assert str(settings.model) == "file.gguf"
    assert (settings.risk, settings.seed, settings.k, settings.max_tokens) == (0.3, 2, 4, 256)


def test_lists_and_modes_can_be_given_as_flags_and_in_the_file(loaded):
    assert loaded("--model", "m", "--stop", "a,b", "--mode", "exact").mode is Mode.EXACT
    assert loaded("--model", "m", toml='stop = ["###", "END"]').stop == ("###", "END")


def test_the_prompt_is_positional_and_another_file_can_be_named(loaded, tmp_path):
    other = tmp_path / "other.toml"
    other.write_text('model = "other.gguf"')
    settings = loaded("What is MQTT?", f"--config={other}", cls=GenerateSettings)
    assert settings.prompt == "What is MQTT?"
    assert str(settings.model) == "other.gguf"


@pytest.mark.parametrize(
    ("broker", "username", "expected"),
    [
        ("broker.lan", None, ("broker.lan", 1883, None, None, False)),
        ("mqtt://pi:s%40t@broker.lan:1884", None, ("broker.lan", 1884, "pi", "s@t", False)),
        ("mqtts://broker.lan", "board", ("broker.lan", 8883, "board", None, True)),
        ("mqtt://[::1]:1883", None, ("::1", 1883, None, None, False)),
    ],
)
def test_a_brokers_address_is_read_as_users_write_it(loaded, broker, username, expected):
    flags = ["--model", "m", "--broker", broker] + (["--username", username] if username else [])
    address = loaded(*flags).broker_address()
    assert (address.host, address.port, address.username, address.password, address.uses_tls) == expected


@pytest.mark.parametrize(
    ("flags", "toml", "line"),
    [
        ([], "", "model is not set: give --model, HUNCH_AGENT_MODEL or model in the TOML file"),
        (["--model", "m", "--risk", "2"], "", "--risk (HUNCH_AGENT_RISK): "),
        (["--model", "m", "--temperature", "1e-9"], "", "give 0 for greedy, or at least 0.001"),
        (["--model", "m", "--name", "a/b"], "", "name 'a/b' cannot be used"),
        (["--model", "m", "--broker", "http://x"], "", "'http://x' is not a broker address"),
        (["--model", "m", "--uncertainty", "guess"], "", "there is no estimator 'guess'; choose from "),
        (["--model", "m"], "riks = 1", "there is no setting named 'riks'; --help lists all"),
        (["--model", "m"], "risk = ", "agent.toml"),
        (["--config", "nowhere.toml"], "", "configuration file nowhere.toml does not exist"),
        (["--model", "m", "--stop", ""], "", "--stop"),
    ],
)
def test_what_is_wrong_is_said_in_one_line_that_names_it(loaded, flags, toml, line):
    with pytest.raises(ConfigurationError) as wrong:
        loaded(*flags, toml=toml)
    assert line in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_help_names_every_setting(loaded, capsys):
    with pytest.raises(SystemExit) as left:
        loaded("--help", cls=GenerateSettings)
    assert left.value.code == 0
    text = capsys.readouterr().out
    for name in GenerateSettings.model_fields:
        assert (f"--{name.replace('_', '-')}" in text) or (name == "prompt" and "PROMPT" in text), name


def test_a_password_shows_neither_in_settings_nor_in_addresses(loaded):
    settings = loaded("--model", "m", "--username", "pi", "--password", "hush")
    assert "hush" not in repr(settings) + repr(settings.broker_address()) + str(settings.broker_address())
