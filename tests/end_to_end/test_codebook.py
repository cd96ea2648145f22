"""A pair's codebook on the wire: who uses it, who does without, and that it changes bytes and nothing else."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import pytest

from cloud_broker_worker.codebooks import Codebooks
from edge_agent.settings import Mode
from schemas import codec
from schemas.errors import UnknownCodebook
from schemas.messages import Prompt, WorkerStatus, parse_message
from schemas.profile import Profile
from schemas.topics import Topics
from tests.conftest import Connect
from tests.end_to_end.stage import VERIFIED, Stage, read
from tests.mqtt_helpers import listen, payloads, wait_for
from tests.profiles import made_up_profile

pytestmark = pytest.mark.end_to_end

TOPICS = Topics()
SHORT = Prompt(id="short", text="Which museums are open today?", max_tokens=12, seed=1)
EXACT: dict[str, Any] = {"mode": Mode.EXACT}


@pytest.fixture
def profile(stage: Stage, tmp_path: Path) -> tuple[Path, Profile]:
    """A profile of the demo's pair with a codebook; it ranks the ids that the tests' answers begin with."""
    with stage.worker(), stage.agent() as agent:
        pair = agent.pair()
        words = agent.model.tokenize("Which museums are open today? What city would you like to search in?")
    assert pair is not None
    dictionary = base64.b64encode(bytes(range(256))).decode()
    made = made_up_profile(pair).model_copy(
        update={"dictionary": dictionary, "ranked_ids": tuple(dict.fromkeys(words))}
    )
    path = tmp_path / "profile.json"
    path.write_bytes(made.to_bytes())
    return path, made


def test_a_codebook_makes_frames_shorter_and_leaves_the_answer_as_it_was(
    stage: Stage, connect: Connect, profile: tuple[Path, Profile]
) -> None:
    path, made = profile
    book = made.codebook()
    assert book is not None
    operator = connect("operator-1", at=stage.broker)
    opens = listen(operator, TOPICS.opens_for("worker-1"), qos=1)
    drafts = listen(operator, TOPICS.drafts_for("worker-1"))
    # The same rule for k on both sides, so that the codebook alone makes the difference.
    with stage.worker(), stage.agent(**EXACT, k=12) as agent:
        without = read(agent, SHORT)
    (plain_opening,) = payloads(opens, 1)
    plain_drafts = payloads(drafts, len([o for o in without.origins if o in VERIFIED[:2]]) + 1)
    with stage.worker(profile=path), stage.agent(**EXACT, k=12) as agent:
        used = read(agent, SHORT)
    (opening,) = payloads(opens, 1)
    sent = payloads(drafts, len(plain_drafts))
    assert used.ids == without.ids
    assert used.origins == without.origins
    assert codec.read_mark(plain_opening) is None
    assert codec.read_mark(opening) == book.mark
    assert [codec.is_by_codebook(draft) for draft in sent] == [True] * len(sent)
    assert not any(codec.is_by_codebook(draft) for draft in plain_drafts)
    assert codec.decode_open(opening, book).prompt_ids == tuple(
        used.answer.ledger.ids[: used.answer.ledger.num_prompt]
    )
    assert sum(map(len, [opening, *sent])) < sum(map(len, [plain_opening, *plain_drafts]))


def test_a_worker_learns_the_codebooks_of_its_pairs_from_the_broker_and_says_so(
    stage: Stage, connect: Connect, profile: tuple[Path, Profile]
) -> None:
    path, made = profile
    book = made.codebook()
    assert book is not None
    with stage.worker(profile=path):
        pass  # the broker keeps the profile
    foreign = made_up_profile().model_copy(update={"dictionary": made.dictionary})
    with stage.worker() as worker:
        stage.publish("worker-2", TOPICS.profile("foreign"), foreign.to_bytes())
        stage.publish("worker-2", TOPICS.profile("broken"), b"{}")
        stage.publish("worker-2", TOPICS.profile("taken-back"), b"")
        statuses = listen(connect("agent-2", at=stage.broker), TOPICS.worker_status("worker-1"), qos=1)
        wait_for(lambda: worker.metrics().dropped.get("OutOfRange") == 1)
        said: list[WorkerStatus] = []

        def lists_it() -> bool:
            said.extend(parse_message(WorkerStatus, message.payload) for message in statuses.drain())
            return bool(said) and said[-1].codebooks == (book.digest,)

        wait_for(lists_it)
        with stage.agent(**EXACT) as agent:
            assert set(read(agent, SHORT).origins) <= set(VERIFIED)


def test_a_worker_that_holds_no_codebook_is_asked_without_one(
    stage: Stage, connect: Connect, profile: tuple[Path, Profile]
) -> None:
    path, _ = profile
    opens = listen(connect("operator-1", at=stage.broker), TOPICS.opens_for("worker-1"), qos=1)
    with stage.worker(), stage.agent(**EXACT, profile=path) as agent:
        assert set(read(agent, SHORT).origins) <= set(VERIFIED)
    assert [codec.read_mark(opening) for opening in payloads(opens, 1)] == [None]


def test_an_agent_whose_codebook_is_refused_opens_without_it_and_asks_again(
    stage: Stage, connect: Connect, profile: tuple[Path, Profile], monkeypatch: pytest.MonkeyPatch
) -> None:
    path, made = profile
    book = made.codebook()
    assert book is not None
    opens = listen(connect("operator-1", at=stage.broker), TOPICS.opens_for("worker-1"), qos=1)
    for_opening, refused = Codebooks.for_opening, []

    def forgetful(self: Codebooks, agent: str, opening: bytes) -> Any:
        if codec.read_mark(opening) is not None:
            refused.append(opening)
            raise UnknownCodebook("codebook", "forgotten")
        return for_opening(self, agent, opening)

    monkeypatch.setattr(Codebooks, "for_opening", forgetful)
    with stage.worker(profile=path) as worker, stage.agent(**EXACT) as agent:
        for _ in range(2):
            assert set(read(agent, SHORT).origins) <= set(VERIFIED)
        assert worker.metrics().dropped["UnknownCodebook"] >= 1
    assert [codec.read_mark(opening) for opening in payloads(opens, 3)] == [book.mark, None, None]
    assert len(refused) == 1  # once for each start of a worker
