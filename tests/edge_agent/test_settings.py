"""Settings by flag, environment and file, and one clear line for what is wrong."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from edge_agent.settings import AgentSettings, GenerateSettings, Mode
from runtime.command_line import Command, dispatch
from runtime.settings import load
from schemas.errors import ConfigurationError, LinkError


@pytest.fixture
def loaded(tmp_path, monkeypatch):
    """Load settings from flags, with an environment and a file of their own."""
    for name in [name for name in os.environ if name.startswith("HUNCH_AGENT_")]:
        monkeypatch.delenv(name)

    def load_them(*flags, toml="", environment=(), cls=AgentSettings):
        path = tmp_path / "agent.toml"
        path.write_text(toml)
        with pytest.MonkeyPatch.context() as patch:
            for name, value in dict(environment).items():
                patch.setenv(name, value)
            return load(cls, list(flags), prog="edge-agent", default_file=path)

    return load_them


def test_a_flag_outweighs_the_environment_which_outweighs_the_file_which_outweighs_the_default(loaded):
    toml = 'model = "file.gguf"\nrisk = 0.1\nk = 4\nseed = 1\n'
    environment = {"HUNCH_AGENT_RISK": "0.2", "HUNCH_AGENT_SEED": "2"}
    settings = loaded("--risk", "0.3", toml=toml, environment=environment)
    assert str(settings.model) == "file.gguf"
    assert (settings.risk, settings.seed, settings.k, settings.max_tokens) == (0.3, 2, 4, 256)


def test_a_rule_for_k_is_set_by_flag_environment_or_file_alone(loaded):
    assert not loaded("--model", "m", "--risk", "0.1").sets_rule
    assert loaded("--model", "m", "-k", "16").sets_rule
    assert loaded("--model", "m", environment={"HUNCH_AGENT_K_RULE": "fixed"}).sets_rule
    assert loaded("--model", "m", toml="rejection_bytes = 60.0\n").sets_rule


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
        flag = {"prompt": "PROMPT", "k": "-k"}.get(name, f"--{name.replace('_', '-')}")
        assert re.search(rf"^  {flag}\b", text, re.MULTILINE), name


def test_a_password_shows_neither_in_settings_nor_in_addresses(loaded):
    settings = loaded("--model", "m", "--username", "pi", "--password", "hush")
    assert "hush" not in repr(settings) + repr(settings.broker_address()) + str(settings.broker_address())


@pytest.mark.parametrize(
    ("flags", "toml", "environment", "line"),
    [
        (["--riks", "1"], "", {}, "unrecognized arguments: --riks 1; --help lists all settings"),
        (["--risk"], "", {}, "argument --risk: expected one argument; --help lists all settings"),
        (["--thres", "1"], "", {}, "unrecognized arguments: --thres 1"),
        (["-k", "0"], "", {}, "-k (HUNCH_AGENT_K): "),
        ([], "stop = ['']", {}, "--stop (HUNCH_AGENT_STOP): "),
        ([], "stop = 'END'", {}, "--stop (HUNCH_AGENT_STOP): "),
        ([], "risk = [1]", {}, "--risk (HUNCH_AGENT_RISK): "),
        ([], "[ca_file]\nfile = 1", {}, "--ca-file (HUNCH_AGENT_CA_FILE): "),
        ([], "[broker_settings]\nfile = 1", {}, "there is no setting named 'broker_settings'"),
        ([], "risk = 9\nseed = -1", {}, "(and 1 more)"),
        ([], "credentials = 5", {}, "--credentials (HUNCH_AGENT_CREDENTIALS): "),
        ([], "", {"STOP": "a,b"}, "HUNCH_AGENT_STOP: a list is written as JSON, such as "),
        ([], "", {"RISK": "much"}, "--risk (HUNCH_AGENT_RISK): "),
        ([], "", {"CONFIG": "nowhere.toml"}, "configuration file nowhere.toml does not exist"),
    ],
)
def test_whichever_way_a_wrong_setting_comes_in_the_line_names_that_way(
    loaded, flags, toml, environment, line
):
    named = {f"HUNCH_AGENT_{name}": value for name, value in environment.items()}
    with pytest.raises(ConfigurationError) as wrong:
        loaded("--model", "m", *flags, toml=toml, environment=named)
    assert line in str(wrong.value)
    assert "\n" not in str(wrong.value)


def test_a_missing_prompt_is_said_in_one_line(loaded):
    with pytest.raises(ConfigurationError, match="required: PROMPT; --help lists all settings"):
        loaded("--model", "m", cls=GenerateSettings)


def test_a_file_that_is_no_text_is_said_in_one_line(loaded, tmp_path):
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"risk = \xff")
    with pytest.raises(ConfigurationError, match=r"binary\.toml is no TOML: "):
        loaded("--model", "m", "--config", str(binary))


def test_a_file_that_must_not_be_read_is_said_in_one_line(loaded, monkeypatch):
    def refuse(*_args, **_options):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("tomllib.load", refuse)
    with pytest.raises(ConfigurationError, match=r"configuration file .*agent\.toml: Permission denied"):
        loaded("--model", "m")


def test_a_variable_without_a_value_is_as_if_it_were_not_there(loaded):
    settings = loaded("--model", "m", environment={"HUNCH_AGENT_CONFIG": "", "HUNCH_AGENT_RISK": ""})
    assert settings.risk == 0.02


@pytest.mark.parametrize("name", ["risk", "seed", "k", "mode", "stop", "model", "log_level"])
def test_each_source_alone_can_set_each_kind_of_setting(loaded, name):
    values = {
        "risk": 0.5,
        "seed": 7,
        "k": 3,
        "mode": "edge",
        "stop": ["a"],
        "model": "m",
        "log_level": "info",
    }
    value = values[name]
    flag = "-k" if name == "k" else f"--{name.replace('_', '-')}"
    word = value[0] if isinstance(value, list) else str(value)
    model = () if name == "model" else ("--model", "m")
    ways = [
        loaded(*model, flag, word),
        loaded(*model, toml=f"{name} = {json.dumps(value)}"),
        loaded(
            *model, environment={f"HUNCH_AGENT_{name.upper()}": f'["{word}"]' if name == "stop" else word}
        ),
    ]
    dumped = [settings.model_dump(mode="json")[name] for settings in ways]
    assert dumped == [value] * 3


@pytest.mark.parametrize(
    "broker",
    [
        "http://pi:hush@broker.lan",
        "mqtt://pi:hu#sh@broker.lan",
        "mqtt://pi:hu/sh@broker.lan",
        "mqtt://pi:hu?sh@broker.lan",
        "pi:hush@broker.lan:99999",
        "mqtt://pi:hush@[::1",
    ],
)
def test_no_password_comes_back_in_what_is_said_of_a_wrong_address(loaded, broker):
    with pytest.raises(ConfigurationError) as wrong:
        loaded("--model", "m", "--broker", broker)
    assert "hu" not in str(wrong.value).replace("HUNCH", "").replace("%23 %3F", "")
    assert "is not a broker address" in str(wrong.value)


def test_a_password_in_the_brokers_address_shows_nowhere_either(loaded):
    settings = loaded("--model", "m", "--broker", "mqtt://pi:hush@broker.lan")
    assert settings.broker_address().password == "hush"
    assert "hush" not in repr(settings) + str(settings) + repr(settings.broker_address())


@pytest.mark.parametrize("query", ["?tls=off", "#part", "/path"])
def test_nothing_in_an_address_is_passed_over_in_silence(loaded, query):
    with pytest.raises(ConfigurationError, match="is not a broker address"):
        loaded("--model", "m", "--broker", f"mqtt://broker.lan{query}")


# ------------------------------------------------------------------------------------------ exit codes


def fails_with(error):
    def command(_argv):
        raise error

    return {"fail": Command("fail", command)}


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigurationError("wrong"), 2),
        (LinkError("no broker"), 1),
        (KeyboardInterrupt(), 130),
    ],
)
def test_each_kind_of_fault_has_its_exit_code_and_no_traceback(error, code, capsys):
    assert dispatch("edge-agent", "about", fails_with(error), ["fail"]) == code
    assert capsys.readouterr().err == (f"edge-agent: {error}\n" if str(error) else "")


def test_a_command_that_does_not_exist_is_named_beside_those_that_do(capsys):
    assert dispatch("edge-agent", "about", fails_with(None), ["faill"]) == 2
    assert capsys.readouterr().err == "edge-agent: there is no command 'faill'; choose from fail\n"


def test_a_full_disk_is_one_line_and_exit_code_2():
    program = (
        "import sys; from runtime.command_line import *;"
        "sys.exit(dispatch('edge-agent', '', {'run': Command('', lambda _: print('text'))}, ['run']))"
    )
    with Path("/dev/full").open("w") as full:
        done = subprocess.run(
            [sys.executable, "-c", program], stdout=full, stderr=subprocess.PIPE, text=True, check=False
        )
    assert done.returncode == 2
    assert done.stderr == "edge-agent: [Errno 28] No space left on device\n"
