"""What the monitor makes of messages: presence, figures, warnings, and pictures that hostile input cannot break."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace

import numpy as np
import pytest
from rich.console import Console

from cloud_broker_worker.codebooks import Codebooks
from cloud_broker_worker.monitor import intake
from cloud_broker_worker.monitor.drill_down import drill_down
from cloud_broker_worker.monitor.fleet import MAX_AGENTS, AnswerEnded, Came, Event, Fleet, Reported, Went
from cloud_broker_worker.monitor.intake import Heard
from cloud_broker_worker.monitor.lines import event_line, event_value, snapshot
from cloud_broker_worker.monitor.printable import printable
from cloud_broker_worker.monitor.rate import Rate
from cloud_broker_worker.monitor.render import Frame, overview
from cloud_broker_worker.monitor.warn import warnings
from cloud_broker_worker.monitor.words import answer_pieces, marked
from schemas.codec import encode_draft, encode_open
from schemas.distribution import TruncatedDistribution
from schemas.errors import WireError
from schemas.frames import Doubt, Draft, Open, Outcome, Refused, Verdict
from schemas.messages import (
    AgentMetrics,
    AgentStatus,
    Message,
    Presence,
    Prompt,
    Usage,
    WorkerMetrics,
    WorkerStatus,
)
from schemas.sampling import SamplingParameters
from schemas.topics import Topics
from schemas.vocabulary import Fingerprint
from tests.profiles import made_up_profile

ONLINE, OFFLINE = Presence.ONLINE, Presence.OFFLINE
HOSTILE = "\x1b[2J\x1b]0;owned\x07\u202etxt\r\n"


class Words:
    """A vocabulary of words, one of which is half a character."""

    num_tokens = 8

    def piece(self, token_id: int) -> bytes:
        return [b"", b" a", b" bus", b"\xc3", b"\xa9", b"\x1b[2J", b"\n", b"!"][token_id]


@pytest.fixture
def fleet() -> Fleet:
    return Fleet(0.0)


def agent(fleet: Fleet, content: Message, name="pi", *, worker=None, now_s=0.0) -> list[Event]:
    return fleet.hear(Heard(name, worker, content), now_s)


def worker(fleet: Fleet, content: Message | None, name="w", *, now_s=0.0) -> list[Event]:
    return fleet.hear(Heard(None, name, content), now_s)


def metrics(*, risk=0.02, answers=1, **usage) -> AgentMetrics:
    return AgentMetrics(request_id="q", answers=answers, risk=risk, threshold=0.1, usage=Usage(**usage))


def ended_answer(fleet: Fleet, *, session=1, now_s=0.0) -> list[Event]:
    """An answer of three skipped tokens, heard from its first draft to the verdict on its last."""
    fleet.hear(Heard("pi", "w", Draft(session, 0, 5, (1, 2, 3), (256,) * 3, None, final=True)), now_s)
    return fleet.hear(Heard("pi", None, Verdict(session, 0, 5, Outcome.AUDITED, None, b"\0" * 3)), now_s)


def kinds(fleet: Fleet, now_s=0.0) -> set[tuple[str, str]]:
    return {(each.kind, each.who) for each in warnings(fleet, now_s)}


def drawn(picture, width=80) -> list[str]:
    out = io.StringIO()
    Console(file=out, width=width, force_terminal=False).print(picture)
    return out.getvalue().splitlines()


def frame(width=80, height: int | None = 24) -> Frame:
    return Frame(0.0, "12:00:00", "broker:1883", width, height)


# ----------------------------------------------------------------------------------------------- presence


def test_coming_and_going_are_events_and_staying_is_none(fleet: Fleet) -> None:
    assert agent(fleet, AgentStatus(state=ONLINE, boot=1, model="m")) == [Came("agent", "pi", "m")]
    assert agent(fleet, AgentStatus(state=ONLINE, boot=1, worker="w")) == []
    assert agent(fleet, AgentStatus(state=OFFLINE, boot=1)) == [Went("agent", "pi")]
    assert agent(fleet, AgentStatus(state=OFFLINE, boot=1)) == []


def test_a_late_will_does_not_mark_a_new_process_dead(fleet: Fleet) -> None:
    worker(fleet, WorkerStatus(state=ONLINE, boot=2))
    assert worker(fleet, WorkerStatus(state=OFFLINE, boot=1)) == []
    assert fleet.workers["w"].is_online


def test_a_cleared_status_takes_its_sender_out_of_the_fleet(fleet: Fleet) -> None:
    worker(fleet, WorkerStatus(state=OFFLINE, boot=2))
    worker(fleet, None)
    assert not fleet.workers


def test_nobody_enters_the_fleet_by_what_others_say_of_them(fleet: Fleet) -> None:
    agent(fleet, Prompt(id="q", text="?"), "made-up")
    fleet.hear(Heard("made-up", None, Refused(1, "no")), 0.0)
    fleet.hear(Heard("pi", "made-up", Draft(1, 0, 5, (1,), (256,), None)), 0.0)
    assert list(fleet.agents) == ["pi"]
    assert not fleet.workers


def test_the_longest_silent_are_forgotten_where_there_are_too_many(fleet: Fleet) -> None:
    for index in range(MAX_AGENTS + 2):
        agent(fleet, AgentStatus(state=ONLINE, boot=1), f"pi-{index}")
    assert len(fleet.agents) == MAX_AGENTS
    assert "pi-0" not in fleet.agents
    assert ("forgotten", "monitor") in kinds(fleet)


# ------------------------------------------------------------------------------------------------ figures


def test_figures_are_over_all_answers_and_leave_out_what_is_not_known(fleet: Fleet) -> None:
    agent(
        fleet, metrics(tokens=10, skipped=6, accepted=3, recovered=1, audited=6, divergence=0.02, bytes_up=50)
    )
    agent(fleet, metrics(tokens=30, skipped=9, accepted=11, recovered=0, unverified=10))
    figures = fleet.agents["pi"].figures
    assert figures.tokens == 40
    assert figures.skip_share == 15 / 40
    assert figures.accept_share == 14 / 15
    assert figures.unverified_share == 10 / 40
    assert (figures.divergence, figures.num_judged) == (0.02, 10)
    assert (figures.bytes_up, figures.bytes_down, figures.round_trip_p99_ms) == (5.0, None, None)


def test_tokens_are_counted_once_whether_frames_or_the_metrics_tell_of_them(fleet: Fleet) -> None:
    run = Draft(1, 0, 5, (1, 2, 3), (256,) * 3, None, final=True)
    fleet.hear(Heard("pi", "w", run), 1.0)
    assert agent(fleet, metrics(tokens=4, skipped=4), now_s=1.0)
    assert fleet.tokens_per_second(2.0) == 4 / 2


def test_an_answer_ends_with_the_verdict_on_its_last_draft(fleet: Fleet) -> None:
    (event,) = ended_answer(fleet)
    assert isinstance(event, AnswerEnded)
    assert event_line(event, None, with_text=False) == "answer   pi  3 tokens, 3 skipped, divergence 0.0000"
    value = event_value(event, None, with_text=False)
    assert (value["worker"], value["usage"]["audited"], "seconds" in value["usage"]) == ("w", 3, False)
    view = fleet.agents["pi"]
    assert (view.num_answers, view.is_answering, view.figures.tokens) == (1, False, 3)


def test_a_report_takes_the_place_of_the_answers_that_it_sums_up(fleet: Fleet) -> None:
    ended_answer(fleet, session=1)
    ended_answer(fleet, session=2)
    # One more than was heard: it was answered while there was no worker.
    (event,) = agent(fleet, metrics(answers=3, tokens=9, skipped=6, unverified=3, bytes_up=90))
    assert isinstance(event, Reported)
    assert event_line(event, None, with_text=False).startswith("metrics  pi  3 answers up to q: 9 tokens, 6 ")
    view = fleet.agents["pi"]
    assert (view.num_answers, view.figures.tokens, view.figures.bytes_up) == (3, 9, 10.0)
    ended_answer(fleet, session=3)
    assert (view.num_answers, view.figures.tokens, view.figures.bytes_up) == (4, 12, 10.0)


def test_an_answer_whose_end_was_not_heard_ends_when_the_next_one_begins(fleet: Fleet) -> None:
    terms = (Fingerprint(8, bytes(16)), SamplingParameters())
    assert fleet.hear(Heard("pi", "w", Open(1, *terms, 1, 50, (1, 2))), 0.0) == []
    fleet.hear(Heard("pi", "w", Draft(1, 0, 2, (1,), (256,), None)), 0.0)
    (event,) = fleet.hear(Heard("pi", "w", Open(2, *terms, 2, 50, (1, 2))), 0.0)
    assert isinstance(event, AnswerEnded)
    assert event.trace.heard.tokens == 1


def test_a_rate_forgets_what_is_older_than_ten_seconds() -> None:
    rate = Rate(0.0)
    rate.add(5.0, 20)
    rate.add(20.0, 30)
    assert rate.per_second(20.5) == 3.0
    assert rate.per_second(40.0) == 0.0


def test_the_time_to_a_verdict_is_that_of_the_worker_it_was_asked_from(fleet: Fleet) -> None:
    worker(fleet, WorkerStatus(state=ONLINE, boot=1))
    fleet.hear(Heard("pi", "w", Draft(1, 0, 5, (1,), (256,), None)), 1.0)
    fleet.hear(Heard("pi", None, Verdict(1, 0, 5, Outcome.AUDITED, None, b"\0")), 1.25)
    assert fleet.workers["w"].reply_median_ms == 250.0


# ----------------------------------------------------------------------------------------------- warnings


def test_a_worker_that_misses_three_beats_is_stale_and_one_that_left_is_offline(fleet: Fleet) -> None:
    worker(fleet, WorkerStatus(state=ONLINE, boot=1, beat_s=2), now_s=100.0)
    worker(fleet, WorkerStatus(state=OFFLINE, boot=1), "gone")
    assert kinds(fleet, 106.0) == {("offline", "gone")}
    assert kinds(fleet, 106.1) == {("offline", "gone"), ("stale", "w")}


def test_an_agent_that_says_why_it_has_no_worker_is_warned_of(fleet: Fleet) -> None:
    agent(fleet, AgentStatus(state=ONLINE, boot=1, note="no worker fits"))
    assert kinds(fleet) == {("note", "pi"), ("no worker", "fleet")}


@pytest.mark.parametrize(
    ("tokens", "divergence", "is_warned"),
    [(1000, 0.04, True), (1000, 0.021, False), (100, 0.2, False), (1000, 0.02, False)],
)
def test_divergence_is_warned_of_where_chance_does_not_explain_it(
    fleet: Fleet, tokens: int, divergence: float, is_warned: bool
) -> None:
    agent(fleet, metrics(tokens=tokens, accepted=tokens, divergence=divergence))
    assert (("divergence", "pi") in kinds(fleet)) == is_warned


def test_unverified_tokens_and_dropped_messages_are_warned_of(fleet: Fleet) -> None:
    agent(fleet, metrics(tokens=100, accepted=90, unverified=10))
    worker(fleet, WorkerMetrics(dropped={"Truncated": 3}))
    assert kinds(fleet) >= {("unverified", "pi"), ("dropped", "w")}


# --------------------------------------------------------------------------------------------------- text


def test_a_character_in_halves_is_shown_by_the_token_that_completes_it(fleet: Fleet) -> None:
    fleet.hear(Heard("pi", "w", Open(1, Fingerprint(8, bytes(16)), SamplingParameters(), 1, 50, (1, 2))), 0.0)
    fleet.hear(Heard("pi", "w", Draft(1, 0, 2, (1, 3, 4, 7), (256,) * 4, None)), 0.0)
    trace = fleet.agents["pi"].trace
    assert trace is not None
    assert marked(answer_pieces(trace, Words())) == " aé!"
    assert marked(answer_pieces(trace, None)) == " 1 3 4 7"


def test_where_there_is_no_colour_marks_tell_the_origin(fleet: Fleet) -> None:
    q_hat = TruncatedDistribution(np.array([1], np.int32), np.array([256], np.uint16))
    fleet.hear(Heard("pi", "w", Draft(1, 0, 2, (7,), (256,), Doubt(q_hat, 0, 1000))), 0.0)
    fleet.hear(Heard("pi", None, Verdict(1, 0, 2, Outcome.RECOVERED, 2, b"\0\0")), 0.0)
    plain = replace(frame(), has_color=False)
    assert "![ bus]" in drawn(drill_down(fleet, "pi", plain, Words()))
    assert "! bus" in drawn(drill_down(fleet, "pi", frame(), Words()))


def test_what_was_not_heard_is_a_gap(fleet: Fleet) -> None:
    fleet.hear(Heard("pi", "w", Draft(1, 0, 2, (1,), (256,), None)), 0.0)
    fleet.hear(Heard("pi", "w", Draft(1, 0, 9, (2,), (256,), None)), 0.0)
    trace = fleet.agents["pi"].trace
    assert trace is not None
    assert marked(answer_pieces(trace, Words())) == " a~… bus"


# ------------------------------------------------------------------------------------------------ hostile


@pytest.mark.parametrize(
    ("topic", "payload"),
    [
        ("agents/pi/status", b"{"),
        ("agents/pi/draft/w", b""),
        ("agents/pi/draft/w", b"\x12\x01\x00\x00\x01\x00" + b"\xff" * 50),
        ("agents/pi/open/w", b"\x11\x00" + b"\xff" * 80),
        ("agents/pi/verdict", b"\x14\x07\x01"),
        ("workers/w/metrics", b'{"dropped": 1}'),
        ("workers/w/status", b"\xff" * 300_000),
    ],
)
def test_a_broken_message_is_counted_and_warned_of(fleet: Fleet, topic: str, payload: bytes) -> None:
    parsed = Topics().parse(f"hunch/v1/{topic}")
    with pytest.raises(WireError) as caught:
        intake.read(parsed, payload, Codebooks())
    fleet.hear_broken(parsed.agent, parsed.worker, caught.value)
    assert kinds(fleet) == {("broken", "monitor")}


def test_drafts_by_a_codebook_are_read_once_their_profile_and_opening_were_heard() -> None:
    profile = made_up_profile().model_copy(
        update={"dictionary": base64.b64encode(b"words").decode(), "ranked_ids": (7,)}
    )
    book, topics, books = profile.codebook(), Topics(), Codebooks()
    assert book is not None
    mark = Fingerprint(4096, bytes(16))
    opening = encode_open(Open(1, mark, SamplingParameters(), 1, 64, (7, 8)), book)
    draft = encode_draft(Draft(1, 0, 2, (7,), (256,), None), book)
    heard = [
        (topics.open("pi", "w"), opening),  # without its profile
        (topics.draft("pi", "w"), draft),
        (topics.profile("any"), profile.to_bytes()),
        (topics.draft("pi", "w"), draft),  # without its opening
        (topics.open("pi", "w"), opening),
        (topics.draft("pi", "w"), draft),
    ]
    read = [intake.read(topics.parse(topic), payload, books) for topic, payload in heard]
    assert [one is not None for one in read] == [False, False, False, False, True, True]
    assert read[-1] is not None
    assert isinstance(read[-1].content, Draft)
    assert read[-1].content.run_ids == (7,)


def test_nothing_that_is_said_moves_the_cursor(fleet: Fleet) -> None:
    events = agent(fleet, AgentStatus(state=ONLINE, boot=1, model=HOSTILE, worker=HOSTILE, note=HOSTILE))
    worker(fleet, WorkerStatus(state=ONLINE, boot=1, model=HOSTILE))
    worker(fleet, WorkerMetrics(dropped={HOSTILE: 1}))
    agent(fleet, Prompt(id="q", text=HOSTILE))
    fleet.hear(Heard("pi", "w", Draft(1, 0, 2, (5, 6, 5), (256,) * 3, None)), 0.0)
    events += agent(fleet, metrics(tokens=3).model_copy(update={"request_id": HOSTILE}))
    text = [event_line(event, Words(), with_text=True) for event in events]
    text += drawn(overview(fleet, frame())) + drawn(drill_down(fleet, "pi", frame(), Words()))
    shown = "\n".join(text)
    assert not {"\x1b", "\x07", "\r", "\u202e"} & set(shown)


def test_text_is_cut_and_made_printable() -> None:
    assert printable("a\tb\nc", keep_lines=True) == "a\N{REPLACEMENT CHARACTER}b\nc"
    assert printable("x" * 500, max_chars=10) == "x" * 9 + "…"


# ------------------------------------------------------------------------------------------------- pictures


@pytest.mark.parametrize(("width", "height"), [(80, 24), (120, 30), (60, 16)])
def test_a_picture_fits_its_terminal_however_large_the_fleet_is(
    fleet: Fleet, width: int, height: int
) -> None:
    for index in range(500):
        name = f"board-with-a-long-name-{index:03}"
        agent(
            fleet,
            AgentStatus(state=ONLINE, boot=1, worker="a-worker-with-a-long-name", note="why" * 50),
            name,
        )
        usage = {"tokens": 1234, "skipped": 900, "accepted": 300, "divergence": 0.0123, "bytes_up": 99_999}
        agent(
            fleet, metrics(**usage, bytes_down=9999, round_trip_median_ms=44.4, round_trip_p99_ms=88.8), name
        )
    for index in range(20):
        worker(
            fleet, WorkerStatus(state=ONLINE, boot=1, model="target" * 20, max_sessions=16), f"cloud-{index}"
        )
    lines = drawn(overview(fleet, frame(width, height)), width)
    assert max(len(line) for line in lines) <= width
    assert len(lines) <= height
    assert (
        len(drawn(drill_down(fleet, "board-with-a-long-name-007", frame(width, height), None), width))
        <= height
    )


def test_an_empty_fleet_and_an_unknown_agent_are_said_in_words(fleet: Fleet) -> None:
    assert any("none heard of yet" in line for line in drawn(overview(fleet, frame())))
    assert any("not heard of yet" in line for line in drawn(drill_down(fleet, "pi", frame(), None)))


def test_json_holds_what_the_tables_show(fleet: Fleet) -> None:
    agent(fleet, AgentStatus(state=ONLINE, boot=1, worker="w"))
    worker(fleet, WorkerStatus(state=ONLINE, boot=1))
    (event,) = agent(fleet, metrics(tokens=2, accepted=2))
    assert isinstance(event, Reported)
    assert json.loads(json.dumps(event_value(event, None, with_text=True)))["usage"]["accepted"] == 2
    value = json.loads(json.dumps(snapshot(fleet, 0.0)))
    assert value["agents"][0]["figures"]["accept_share"] == 1.0
    assert value["workers"][0]["status"]["state"] == "online"
    assert value["warnings"] == []
