"""Topics: the methods, the parser and the table of rules are in step, and bad names never get through."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import ConfigurationError, UnknownKind
from schemas.topics import (
    DEFAULT_ROOT,
    MAX_NAME_LENGTH,
    TOPIC_RULES,
    ParsedTopic,
    Role,
    TopicKind,
    Topics,
    check_name,
)

TOPICS = Topics()
NAMES = st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True)
# A topic method's arguments by the placeholder that each fills.
PLACEHOLDERS = {"agent": "agent", "worker": "worker", "request_id": "id", "profile_id": "id"}


def make(kind, **names):
    """The topic of a kind, by the method that bears its name."""
    method = getattr(TOPICS, kind.value)
    arguments = inspect.signature(method).parameters
    return method(*(names[PLACEHOLDERS[argument]] for argument in arguments))


def test_there_is_one_rule_for_each_kind():
    assert [rule.kind for rule in TOPIC_RULES] == list(TopicKind)


@pytest.mark.parametrize("rule", TOPIC_RULES, ids=lambda rule: rule.kind.value)
def test_the_method_named_like_a_kind_fills_its_pattern(rule):
    names = {"agent": "pi-7", "worker": "gpu.1", "id": "42"}
    assert make(rule.kind, **names) == f"{DEFAULT_ROOT}/{rule.pattern.format(**names)}"


@pytest.mark.parametrize("rule", TOPIC_RULES, ids=lambda rule: rule.kind.value)
def test_a_rule_keeps_what_a_reconnect_needs_and_confirms_it(rule):
    assert rule.qos in {0, 1}
    assert not rule.retained or rule.qos == 1
    assert rule.writers
    assert Role.OPERATOR in rule.readers
    assert Role.OPERATOR not in rule.writers


@given(st.sampled_from(TOPIC_RULES), NAMES, NAMES, NAMES)
def test_what_a_method_makes_is_parsed_back(rule, agent, worker, item):
    names = {"agent": agent, "worker": worker, "id": item}
    parsed = TOPICS.parse(make(rule.kind, **names))
    used = {key: value for key, value in names.items() if f"{{{key}}}" in rule.pattern}
    assert parsed == ParsedTopic(rule.kind, used.get("agent"), used.get("worker"), used.get("id"))


def test_the_topics_are_the_ones_of_the_design():
    assert TOPICS.agent_status("a") == "hunch/v1/agents/a/status"
    assert TOPICS.open("a", "w") == "hunch/v1/agents/a/open/w"
    assert TOPICS.draft("a", "w") == "hunch/v1/agents/a/draft/w"
    assert TOPICS.verdict("a") == "hunch/v1/agents/a/verdict"
    assert TOPICS.agent_metrics("a") == "hunch/v1/agents/a/metrics"
    assert TOPICS.prompt("a") == "hunch/v1/agents/a/prompt"
    assert TOPICS.completion("a", "9") == "hunch/v1/agents/a/completion/9"
    assert TOPICS.worker_status("w") == "hunch/v1/workers/w/status"
    assert TOPICS.worker_metrics("w") == "hunch/v1/workers/w/metrics"
    assert TOPICS.profile("p") == "hunch/v1/profiles/p"


def test_the_filters_take_the_place_of_names_by_wildcards():
    assert TOPICS.all_agent_status() == "hunch/v1/agents/+/status"
    assert TOPICS.all_worker_status() == "hunch/v1/workers/+/status"
    assert TOPICS.all_agent_metrics() == "hunch/v1/agents/+/metrics"
    assert TOPICS.all_worker_metrics() == "hunch/v1/workers/+/metrics"
    assert TOPICS.all_profiles() == "hunch/v1/profiles/+"
    assert TOPICS.opens_for("w") == "hunch/v1/agents/+/open/w"
    assert TOPICS.drafts_for("w") == "hunch/v1/agents/+/draft/w"
    assert TOPICS.completions_of("a") == "hunch/v1/agents/a/completion/+"
    assert TOPICS.everything() == "hunch/v1/#"


def test_a_filter_for_a_user_holds_its_own_name_and_wildcards_for_the_others():
    rules = {rule.kind: rule for rule in TOPIC_RULES}
    draft = rules[TopicKind.DRAFT]
    assert TOPICS.filter_for(draft, Role.AGENT, "pi") == "hunch/v1/agents/pi/draft/+"
    assert TOPICS.filter_for(draft, Role.WORKER, "w") == "hunch/v1/agents/+/draft/w"
    assert TOPICS.filter_for(draft, Role.OPERATOR, "o") == "hunch/v1/agents/+/draft/+"


def test_another_root_moves_everything_and_its_topics_are_not_ours():
    other = Topics("lab/hunch/v2")
    assert other.verdict("a") == "lab/hunch/v2/agents/a/verdict"
    assert other.parse("lab/hunch/v2/agents/a/verdict").kind is TopicKind.VERDICT
    with pytest.raises(UnknownKind):
        TOPICS.parse("lab/hunch/v2/agents/a/verdict")


@pytest.mark.parametrize("root", ["", "/hunch", "hunch/", "hunch//v1", "hunch/+", "hunch/#", "$SYS", "a b"])
def test_a_root_that_mqtt_would_misread_is_refused(root):
    with pytest.raises(ConfigurationError):
        Topics(root)


@pytest.mark.parametrize(
    "name", ["", "a/b", "+", "#", "$SYS", "a\0b", "a b", "ä", "a\n", "x" * (MAX_NAME_LENGTH + 1)]
)
def test_a_bad_name_is_refused_with_the_mend_by_every_method(name):
    with pytest.raises(ConfigurationError, match="use 1 to 64 letters"):
        check_name(name)
    for rule in TOPIC_RULES:
        with pytest.raises(ConfigurationError):
            make(rule.kind, agent=name, worker=name, id=name)


@pytest.mark.parametrize("name", ["a", "pi-7", "gpu.rack_2", "A" * MAX_NAME_LENGTH])
def test_a_good_name_is_returned(name):
    assert check_name(name) == name


@pytest.mark.parametrize(
    "topic",
    [
        "",
        "hunch/v1",
        "hunch/v1/",
        "hunch/v2/agents/a/verdict",
        "hunch/v1/agents/a",
        "hunch/v1/agents/a/verdict/",
        "hunch/v1/agents/a/verdicts",
        "hunch/v1/agents//verdict",
        "hunch/v1/agents/+/verdict",
        "hunch/v1/agents/a b/verdict",
        "hunch/v1/agents/a/draft",
        "hunch/v1/agents/a/draft/w/x",
        "hunch/v1/workers/" + "w" * (MAX_NAME_LENGTH + 1) + "/status",
        "/hunch/v1/agents/a/verdict",
    ],
)
def test_a_topic_that_no_method_makes_is_unknown(topic):
    with pytest.raises(UnknownKind):
        TOPICS.parse(topic)


@given(st.text(max_size=80))
def test_parsing_any_text_never_raises_anything_else(text):
    for topic in (text, f"{DEFAULT_ROOT}/{text}", f"{DEFAULT_ROOT}/agents/{text}/verdict"):
        try:
            parsed = TOPICS.parse(topic)
        except UnknownKind:
            continue
        assert make(parsed.kind, agent=parsed.agent, worker=parsed.worker, id=parsed.item) == topic
