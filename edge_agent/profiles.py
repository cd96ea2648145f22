"""The profile of the pair in use. In: a file, or what is retained on the broker. Out: a profile that fits, or None.

A profile from a file that is for another draft model is refused at the start. One for another target model,
or a broken one on the broker, is left out with one line in the log, and the agent goes on without.
"""

from __future__ import annotations

import logging
import time

from edge_agent.learned import why_unusable
from edge_agent.workers import WorkerDirectory
from runtime.mqtt import Connection, Inbox
from schemas.errors import ConfigurationError, WireError
from schemas.messages import VocabularyMark, parse_message
from schemas.profile import Pair, Profile
from schemas.topics import Topics
from schemas.vocabulary import Vocabulary

logger = logging.getLogger(__name__)


class ProfileShelf:
    """Finds the profile of a pair; each pair is looked for once on the broker, and asked for only then."""

    def __init__(self, connection: Connection, topics: Topics, given: Profile | None) -> None:
        self._connection, self._topics, self._given = connection, topics, given
        self._inboxes: dict[str, Inbox] = {}
        self._found: dict[str, Profile] = {}
        self._complained: set[str] = set()

    def find(self, pair: Pair, wait_s: float = 0.0) -> Profile | None:
        """The profile of the pair: the given one if it fits, else what is retained under the pair's id."""
        if self._given is not None:
            misfit = self._given.misfit(pair)
            if misfit is None:
                return self._given
            self._complain(pair.id, misfit)
        if pair.id not in self._inboxes:
            self._inboxes[pair.id] = self._connection.subscribe([(self._topics.profile(pair.id), 1)])
            first = self._inboxes[pair.id].get(wait_s)
            if first is not None:
                self._take(pair, first.payload)
        for message in self._inboxes[pair.id].drain():
            self._take(pair, message.payload)
        return self._found.get(pair.id)

    def _take(self, pair: Pair, payload: bytes) -> None:
        """The newest word counts; an empty one takes the profile back, as retained messages are deleted so."""
        if not payload:
            self._found.pop(pair.id, None)
            return
        try:
            profile = parse_message(Profile, payload)
        except WireError as error:
            self._complain(pair.id, f"ignored a broken profile: {error}")
            return
        misfit = profile.misfit(pair) or why_unusable(profile.learned)
        if misfit is None:
            self._found[pair.id] = profile
        else:
            self._complain(pair.id, misfit)

    def _complain(self, profile_id: str, why: str) -> None:
        if profile_id not in self._complained:
            self._complained.add(profile_id)
            logger.warning("%s; going on without it", why)


def check_draft(profile: Profile, source: str, draft: str, draft_digest: str) -> None:
    """Raise ConfigurationError where a profile is for another draft model; `source` is where it came from."""
    mine = profile.pair.model_copy(update={"draft": draft, "draft_digest": draft_digest})
    misfit = profile.misfit(mine)
    if misfit is not None:
        raise ConfigurationError(f"{source}: {misfit}")


def pair_in_use(
    directory: WorkerDirectory, draft: str, draft_digest: str, vocabulary: Vocabulary
) -> Pair | None:
    """The draft model and the target model of the worker that would be asked now; None without one."""
    for worker in directory.ranked(time.monotonic()):
        status = directory.status(worker)
        if status is not None and status.model is not None and status.vocabulary is not None:
            return Pair(
                draft=draft,
                draft_digest=draft_digest,
                draft_vocabulary=VocabularyMark.of(vocabulary.fingerprint()),
                target=status.model,
                target_vocabulary=status.vocabulary,
            )
    return None
