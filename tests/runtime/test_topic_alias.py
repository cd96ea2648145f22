"""Topic aliases: defined before used, within the broker's bound, reused when they run out."""

from __future__ import annotations

from runtime.topic_alias import TopicAliases


def test_a_topic_is_defined_at_its_first_use_and_known_after_it():
    aliases = TopicAliases(10)
    assert aliases.use("a") == (1, False)
    assert aliases.use("a") == (1, True)
    assert aliases.use("b") == (2, False)
    assert aliases.use("a") == (1, True)


def test_a_broker_that_takes_no_aliases_gets_none():
    assert TopicAliases(0).use("a") is None


def test_when_they_run_out_the_least_recently_used_is_defined_anew():
    aliases = TopicAliases(2)
    aliases.use("a")
    aliases.use("b")
    aliases.use("a")
    assert aliases.use("c") == (2, False)
    assert aliases.use("a") == (1, True)
    assert aliases.use("b") == (2, False)
