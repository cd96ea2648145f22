"""JSON messages: golden text, every field back as it was, and hostile JSON refused by name and at little cost."""

from __future__ import annotations

import json
import time
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.errors import OutOfRange, TooLarge, WireError
from schemas.messages import (
    MAX_JSON_BYTES,
    MAX_JSON_INTEGER,
    AgentMetrics,
    AgentStatus,
    ChatMessage,
    Completion,
    Message,
    Presence,
    Prompt,
    RecentFigures,
    Usage,
    VocabularyMark,
    WorkerMetrics,
    WorkerStatus,
    parse_message,
)
from schemas.sampling import SamplingParameters
from tests.schemas.strategies import SAMPLING

KINDS = (AgentStatus, WorkerStatus, AgentMetrics, WorkerMetrics, Prompt, Completion)
USAGE = Usage(prompt_tokens=9, tokens=4, skipped=1, accepted=1, recovered=1, bonus=1, seconds=0.5, audited=1)
GOLDEN = [
    (
        AgentStatus(state=Presence.ONLINE, boot=1732, version="0.1.0", model="draft.gguf", worker="gpu-1"),
        '{"state":"online","boot":1732,"version":"0.1.0","model":"draft.gguf","worker":"gpu-1"}',
    ),
    (
        WorkerStatus(
            state=Presence.ONLINE,
            boot=7,
            version="0.1.0",
            model="target.gguf",
            vocabulary=VocabularyMark(num_tokens=4096, digest="00ff" * 8),
            sessions=3,
            max_sessions=16,
            n_ctx=768,
            load=0.25,
        ),
        (
            '{"state":"online","boot":7,"version":"0.1.0","model":"target.gguf","vocabulary":{"num_tokens":4096,'
            '"digest":"00ff00ff00ff00ff00ff00ff00ff00ff"},"beat_s":5.0,"sessions":3,"max_sessions":16,'
            '"n_ctx":768,"load":0.25}'
        ),
    ),
    (
        AgentMetrics(request_id="q-1", risk=0.02, threshold=0.1, usage=USAGE),
        (
            '{"request_id":"q-1","answers":1,"risk":0.02,"threshold":0.1,"usage":{"prompt_tokens":9,"tokens":4,"skipped":1,'
            '"accepted":1,"recovered":1,"bonus":1,"unverified":0,"seconds":0.5,"audited":1}}'
        ),
    ),
    (
        WorkerMetrics(drafts=9, dropped={"Truncated": 1}),
        (
            '{"drafts":9,"accepted":0,"recovered":0,"audited_tokens":0,"target_tokens":0,"target_passes":0,'
            '"opened":0,"evicted":0,"resynced":0,"refused":0,"dropped":{"Truncated":1}}'
        ),
    ),
    (
        Prompt(id="q-1", text="Who?", sampling=SamplingParameters(temperature=0), seed=1, stop=("\n",)),
        (
            '{"id":"q-1","text":"Who?","raw":false,"sampling":{"temperature":0.0,"top_p":1.0,"min_p":0.0},'
            '"seed":1,"stop":["\\n"]}'
        ),
    ),
    (
        Prompt(id="q-1", messages=(ChatMessage(role="user", content="é"),)),
        '{"id":"q-1","messages":[{"role":"user","content":"é"}],"raw":false}',
    ),
    (
        Completion(index=3, text="", finish_reason="stop"),
        '{"index":3,"text":"","finish_reason":"stop"}',
    ),
]


@pytest.mark.parametrize(("message", "text"), GOLDEN, ids=lambda value: type(value).__name__)
def test_a_message_has_exactly_this_text(message, text):
    assert message.to_bytes().decode() == text
    assert parse_message(type(message), text.encode()) == message


def test_every_kind_of_message_has_a_golden_text():
    assert {type(message) for message, _ in GOLDEN} == set(KINDS)
    kinds = {kind for kind in Message.__subclasses__() if kind.__module__ == "schemas.messages"}
    assert kinds - {Usage, RecentFigures, ChatMessage, VocabularyMark} == set(
        KINDS
    )  # profiles have a module and tests of their own


COUNTS = st.integers(0, MAX_JSON_INTEGER)
NUMBERS = st.floats(0, allow_infinity=False)
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
MARKS = st.builds(
    VocabularyMark,
    num_tokens=st.integers(1, 2**24),
    digest=st.binary(min_size=16, max_size=16).map(bytes.hex),
)
USAGES = st.builds(
    Usage,
    **dict.fromkeys(
        ("prompt_tokens", "tokens", "skipped", "accepted", "recovered", "bonus", "unverified", "audited"),
        COUNTS,
    ),
    **dict.fromkeys(("bytes_up", "bytes_down"), st.none() | COUNTS),
    **dict.fromkeys(
        ("round_trip_median_ms", "round_trip_p99_ms", "divergence", "divergence_margin"), st.none() | NUMBERS
    ),
    seconds=NUMBERS,
)
RECENT = st.builds(
    RecentFigures,
    tokens=COUNTS,
    **dict.fromkeys(("skip_share", "unverified_share"), st.floats(0, 1)),
    **dict.fromkeys(("divergence", "divergence_margin"), st.none() | NUMBERS),
)
TURNS = st.lists(
    st.builds(ChatMessage, role=st.text("abc", min_size=1, max_size=32), content=TEXTS),
    min_size=1,
    max_size=5,
)
PROMPTS = st.builds(
    lambda question, raw, **rest: Prompt(**question, raw=raw and "text" in question, **rest),
    st.fixed_dictionaries({"text": TEXTS}) | st.fixed_dictionaries({"messages": TURNS.map(tuple)}),
    st.booleans(),
    id=st.from_regex(r"[A-Za-z0-9._-]{1,64}", fullmatch=True),
    max_tokens=st.none() | st.integers(1, 2**17),
    sampling=st.none() | SAMPLING,
    seed=st.none() | st.integers(0, 2**64 - 1),
    stop=st.none() | st.lists(TEXTS.filter(bool), max_size=16).map(tuple),
)
MESSAGES = st.one_of(
    st.builds(
        AgentStatus,
        state=st.sampled_from(Presence),
        boot=COUNTS,
        **dict.fromkeys(("version", "model", "worker", "note"), st.none() | TEXTS),
    ),
    st.builds(
        WorkerStatus,
        state=st.sampled_from(Presence),
        boot=COUNTS,
        vocabulary=st.none() | MARKS,
        beat_s=st.floats(0, 3600, exclude_min=True),
        load=st.floats(0, 1),
        **dict.fromkeys(("version", "model"), st.none() | TEXTS),
        **dict.fromkeys(("sessions", "max_sessions", "n_ctx"), COUNTS),
    ),
    st.builds(
        AgentMetrics,
        request_id=TEXTS,
        risk=st.none() | st.floats(0, 1),
        threshold=st.floats(-1, 1),
        usage=USAGES,
        recent=st.none() | RECENT,
    ),
    st.builds(
        WorkerMetrics,
        **dict.fromkeys((name for name in WorkerMetrics.model_fields if name != "dropped"), COUNTS),
        dropped=st.dictionaries(TEXTS, COUNTS, max_size=5),
    ),
    PROMPTS,
    st.builds(
        Completion,
        index=COUNTS,
        text=TEXTS,
        finish_reason=st.sampled_from([None, "stop", "length", "error"]),
        error=st.none() | TEXTS,
        usage=st.none() | USAGES,
    ),
)


@given(MESSAGES)
def test_every_field_comes_back(message):
    assert parse_message(type(message), message.to_bytes()) == message


@given(MESSAGES)
def test_any_json_reader_can_read_a_message(message):
    read = json.loads(message.to_bytes(), parse_constant=pytest.fail)
    assert parse_message(type(message), json.dumps(read).encode()) == message


def test_unknown_fields_of_a_newer_sender_are_ignored():
    status = parse_message(AgentStatus, b'{"state":"online","boot":1,"mood":"good","vocabulary":{}}')
    assert status == AgentStatus(state=Presence.ONLINE, boot=1)


def test_an_unknown_sampling_parameter_is_refused_because_ignoring_it_would_change_the_answer():
    with pytest.raises(OutOfRange, match=r"sampling\.typical_p: Extra inputs"):
        parse_message(Prompt, b'{"id":"q","text":"x","sampling":{"typical_p":0.5}}')


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b" ",
        b"null",
        b"[]",
        b"1",
        b'"x"',
        b"{",
        b"{}x",
        b"{}{}",
        b"\xff\xfe",
        b"\xef\xbb\xbf{}",
        b'{"id":"\xff"}',
        b'{"id":"\xed\xa0\x80"}',
        b'{"id":"\\ud800"}',
        b'{"id":"a\x00"}',
        b"{'id':1}",
        b"[" * 100_000,
        b'{"a":' * 40_000,
        b'{"id":' + b"[" * 5000 + b"]" * 5000 + b"}",
        b'{"boot":' + b"9" * 100_000 + b"}",
    ],
    ids=lambda value: value[:12].hex() if isinstance(value, bytes) else None,
)
def test_what_is_no_such_message_is_refused(kind, payload):
    with pytest.raises(OutOfRange):
        parse_message(kind, payload)


ONLINE = '{"state":"online","boot":1'
ASK = '{"id":"q","text":"x"'
METRICS = '{"request_id":"q","threshold":0.1,"usage":{}'


@pytest.mark.parametrize(
    ("kind", "text", "field"),
    [
        (AgentStatus, '{"boot":1}', "state"),
        (AgentStatus, '{"state":"ONLINE","boot":1}', "state"),
        (AgentStatus, '{"state":"online"}', "boot"),
        (AgentStatus, '{"state":"online","boot":-1}', "boot"),
        (AgentStatus, '{"state":"online","boot":1.5}', "boot"),
        (AgentStatus, '{"state":"online","boot":"1"}', "boot"),
        (AgentStatus, '{"state":"online","boot":true}', "boot"),
        (AgentStatus, '{"state":"online","boot":9007199254740992}', "boot"),
        (AgentStatus, '{"state":"online","boot":NaN}', "boot"),
        (AgentStatus, f'{ONLINE},"worker":5}}', "worker"),
        (WorkerStatus, f'{ONLINE},"beat_s":0}}', "beat_s"),
        (WorkerStatus, f'{ONLINE},"beat_s":1e9}}', "beat_s"),
        (WorkerStatus, f'{ONLINE},"beat_s":Infinity}}', "beat_s"),
        (WorkerStatus, f'{ONLINE},"beat_s":NaN}}', "beat_s"),
        (WorkerStatus, f'{ONLINE},"load":1.01}}', "load"),
        (WorkerStatus, f'{ONLINE},"load":-0.1}}', "load"),
        (WorkerStatus, f'{ONLINE},"sessions":-1}}', "sessions"),
        (
            WorkerStatus,
            f'{ONLINE},"vocabulary":{{"num_tokens":0,"digest":"{"0" * 32}"}}}}',
            "vocabulary.num_tokens",
        ),
        (
            WorkerStatus,
            f'{ONLINE},"vocabulary":{{"num_tokens":1,"digest":"{"0" * 31}"}}}}',
            "vocabulary.digest",
        ),
        (
            WorkerStatus,
            f'{ONLINE},"vocabulary":{{"num_tokens":1,"digest":"{"0" * 32}\\n"}}}}',
            "vocabulary.digest",
        ),
        (
            WorkerStatus,
            f'{ONLINE},"vocabulary":{{"num_tokens":1,"digest":"{"A" * 32}"}}}}',
            "vocabulary.digest",
        ),
        (AgentMetrics, '{"request_id":"q","threshold":NaN,"usage":{}}', "threshold"),
        (AgentMetrics, '{"request_id":"q","threshold":1e999,"usage":{}}', "threshold"),
        (AgentMetrics, f'{METRICS},"risk":-Infinity}}', "risk"),
        (AgentMetrics, '{"request_id":"q","threshold":0,"usage":{"divergence":NaN}}', "usage.divergence"),
        (AgentMetrics, '{"request_id":"q","threshold":0,"usage":{"seconds":-1}}', "usage.seconds"),
        (WorkerMetrics, '{"drafts":1e400}', "drafts"),
        (WorkerMetrics, '{"dropped":{"x":-1}}', "dropped.x"),
        (Prompt, '{"text":"x"}', "id"),
        (Prompt, '{"id":"","text":"x"}', "id"),
        (Prompt, '{"id":"a/b","text":"x"}', "id"),
        (Prompt, '{"id":"#","text":"x"}', "id"),
        (Prompt, '{"id":"a\\n","text":"x"}', "id"),
        (Prompt, '{"id":"ä","text":"x"}', "id"),
        (Prompt, f'{{"id":"{"x" * 65}","text":"x"}}', "id"),
        (Prompt, '{"id":"q"}', "Prompt"),
        (Prompt, f'{ASK},"messages":[{{"role":"user","content":"x"}}]}}', "Prompt"),
        (Prompt, '{"id":"q","messages":[{"role":"user","content":"x"}],"raw":true}', "Prompt"),
        (Prompt, '{"id":"q","messages":[]}', "messages"),
        (Prompt, '{"id":"q","messages":[{"role":"","content":"x"}]}', "messages.0.role"),
        (Prompt, f'{ASK},"raw":"yes"}}', "raw"),
        (Prompt, f'{ASK},"max_tokens":0}}', "max_tokens"),
        (Prompt, f'{ASK},"max_tokens":131073}}', "max_tokens"),
        (Prompt, f'{ASK},"seed":18446744073709551616}}', "seed"),
        (Prompt, f'{ASK},"stop":[""]}}', "stop.0"),
        (Prompt, f'{ASK},"stop":{json.dumps(["x"] * 17)}}}', "stop"),
        (Prompt, f'{ASK},"sampling":{{"temperature":NaN}}}}', "sampling.temperature"),
        (Prompt, f'{ASK},"sampling":{{"temperature":11}}}}', "sampling.temperature"),
        (Prompt, f'{ASK},"sampling":{{"top_k":0}}}}', "sampling.top_k"),
        (Prompt, f'{ASK},"sampling":{{"top_p":0}}}}', "sampling.top_p"),
        (Completion, '{"index":-1}', "index"),
        (Completion, '{"index":0,"finish_reason":"bored"}', "finish_reason"),
    ],
)
def test_a_value_that_breaks_its_rule_is_refused_by_name(kind, text, field):
    with pytest.raises(OutOfRange) as caught:
        parse_message(kind, text.encode())
    assert caught.value.what == field
    assert len(str(caught.value)) < 200


@pytest.mark.parametrize("kind", KINDS)
def test_an_oversized_message_is_refused_before_it_is_read(kind):
    payload = b'{"id":"' + b"x" * (MAX_JSON_BYTES - 8) + b'"}'
    assert len(payload) == MAX_JSON_BYTES + 1
    with pytest.raises(TooLarge, match=f"{kind.__name__}: 262145 bytes, at most 262144"):
        parse_message(kind, payload)
    with pytest.raises(OutOfRange):
        parse_message(kind, payload[1:])


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id":"q","messages":[' + b"1," * 120_000 + b"1]}",
        b'{"id":"q","messages":[' + b"{}," * 80_000 + b"{}]}",
        b'{"id":"q","messages":[' + b'{"role":"u","content":""},' * 10_000 + b"1]}",
        b'{"id":"q","stop":[' + b"1," * 120_000 + b"1]}",
        b'{"id":"q","text":"x","sampling":{' + b",".join(b'"%d":1' % i for i in range(20_000)) + b"}}",
        b'{"dropped":{' + b",".join(b'"%d":"x"' % i for i in range(20_000)) + b"}}",
    ],
    ids=["numbers", "empty turns", "many turns", "stop", "extra parameters", "reasons"],
)
def test_thousands_of_faults_cost_little_more_than_one(payload):
    kind = WorkerMetrics if payload.startswith(b'{"dropped"') else Prompt
    tracemalloc.start()
    started_s = time.process_time()
    try:
        with pytest.raises(OutOfRange):
            parse_message(kind, payload)
        assert time.process_time() - started_s < 0.5
        assert tracemalloc.get_traced_memory()[1] < 20_000_000
    finally:
        tracemalloc.stop()


def test_a_made_up_name_cannot_break_out_of_the_line_that_quotes_it():
    name = "\\n\\u001b[2J\\u2028" + "x" * 10_000
    with pytest.raises(OutOfRange) as caught:
        parse_message(Prompt, f'{ASK},"sampling":{{"{name}":1}}}}'.encode())
    assert str(caught.value).isascii()
    assert str(caught.value).isprintable()
    assert len(str(caught.value)) < 150


@given(st.sampled_from(KINDS), st.binary(max_size=100))
def test_any_bytes_give_a_message_or_a_wire_error(kind, payload):
    try:
        parse_message(kind, payload)
    except WireError:
        return
    assert kind is WorkerMetrics  # the only one with no field that must be there


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@given(st.sampled_from(KINDS), st.data())
def test_any_json_in_the_known_fields_gives_a_message_or_a_wire_error(kind, data):
    fields = data.draw(st.dictionaries(st.sampled_from(sorted(kind.model_fields)), JSON_VALUES))
    try:
        message = parse_message(kind, json.dumps(fields).encode())
    except WireError:
        return
    assert parse_message(kind, message.to_bytes()) == message


def test_our_own_side_cannot_make_a_message_that_others_would_refuse():
    with pytest.raises(ValueError, match="finite number"):
        AgentMetrics(request_id="q", threshold=float("nan"), usage=Usage())
    with pytest.raises(ValueError, match="less than or equal"):
        AgentStatus(state=Presence.ONLINE, boot=2**53)
