"""Which codebook a frame was written by. In: profiles, frames as they come. Out: the codec to read each with. Pure.

An opening names its codebook, and the drafts of its session only say that they use it. So openings must be
given in the order in which they came, and drafts after them.
"""

from __future__ import annotations

from schemas import codec
from schemas.codebook import Codebook
from schemas.compression import BodyCodec
from schemas.errors import UnknownCodebook
from schemas.profile import Profile

# A worker serves a draft model or two; a broker may keep profiles of many more pairs, and the newest win.
MAX_CODEBOOKS = 16
# What a fleet of thousands opens at once. The longest unused session is forgotten, and its next draft refused:
# its agent then opens anew.
_MAX_SESSIONS = 1 << 14


class Codebooks:
    """The codebooks at hand, and which session uses which."""

    def __init__(self) -> None:
        self._plain = BodyCodec()
        self._by_mark: dict[bytes, Codebook] = {}
        self._of_session: dict[tuple[str, int], Codebook] = {}

    @property
    def digests(self) -> tuple[str, ...]:
        """Those at hand, for agents to choose from."""
        return tuple(book.digest for book in self._by_mark.values())

    def learn(self, profile: Profile) -> bool:
        """Keep a profile's codebook; whether that changed anything. The first of two with one mark stays."""
        book = profile.codebook()
        if book is None or book.mark in self._by_mark:
            return False
        if len(self._by_mark) >= MAX_CODEBOOKS:
            del self._by_mark[next(iter(self._by_mark))]
        self._by_mark[book.mark] = book
        return True

    def for_opening(self, agent: str, opening: bytes) -> BodyCodec:
        """What to read an opening and its session with. Raises UnknownCodebook where it is not at hand."""
        session = codec.peek_session(opening)
        mark = codec.read_mark(opening)
        if session is not None:
            self._of_session.pop((agent, session), None)
        if session is None or mark is None:
            return self._plain
        book = self._by_mark.get(mark)
        if book is None:
            raise UnknownCodebook("codebook", f"{mark.hex()} is not known here; open without it")
        if len(self._of_session) >= _MAX_SESSIONS:
            del self._of_session[next(iter(self._of_session))]
        self._of_session[agent, session] = book
        return book

    def for_draft(self, agent: str, draft: bytes) -> BodyCodec:
        """What to read a draft with. Raises UnknownCodebook where its session is not known to use any."""
        if not codec.is_by_codebook(draft):
            return self._plain
        session = codec.peek_session(draft)
        book = None if session is None else self._of_session.pop((agent, session), None)
        if book is None or session is None:
            raise UnknownCodebook("codebook", f"session {session} was not opened with any; open it anew")
        self._of_session[agent, session] = book  # the one last used
        return book
