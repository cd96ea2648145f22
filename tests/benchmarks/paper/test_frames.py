"""The papers' protocol: what goes in comes out, and what is broken is refused."""

from __future__ import annotations

import pytest

from benchmarks.paper.frames import Begin, Reply, Upload
from schemas.errors import WireError

FRAMES = [
    Begin(3, streams=True, temperature=0.7, seed=2**40, max_tokens=200, prompt_ids=(0, 300, 4095)),
    Begin(0, streams=False, temperature=0.0, seed=0, max_tokens=1, prompt_ids=(7,)),
    Upload(3, kept_ids=(5, 600), token_id=17, entries=b"\x01\x02\x03"),
    Upload(3, kept_ids=(), token_id=0, entries=b""),
    Reply(3, token_id=4095),
]


@pytest.mark.parametrize("frame", FRAMES, ids=repr)
def test_a_frame_comes_back_as_it_was(frame):
    assert type(frame).from_bytes(frame.to_bytes()) == frame


@pytest.mark.parametrize("frame", [FRAMES[0], FRAMES[4]], ids=repr)
def test_a_frame_that_is_cut_or_goes_on_is_refused(frame):
    data = frame.to_bytes()
    for broken in (data[:-1], data + b"\x00", b""):
        with pytest.raises(WireError):
            type(frame).from_bytes(broken)


def test_skipped_ids_are_charged_on_the_wire_one_or_two_bytes_each():
    plain = Upload(1, (), 9, b"x").to_bytes()
    assert len(Upload(1, (100, 4000), 9, b"x").to_bytes()) == len(plain) + 3
