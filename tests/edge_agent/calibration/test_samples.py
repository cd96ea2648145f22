"""Samples outlive an interruption, and are never taken for those of something else."""

from __future__ import annotations

import pytest

from edge_agent.calibration.replay import Sample
from edge_agent.calibration.samples import SampleFile
from schemas.errors import ConfigurationError

SUBJECT = {"texts": "a", "k": 16}
SAMPLE = Sample(3, 200, (1, 2), 0.25, (0.5, 0.5), (1.0, -2.0), (3, 4), (0.75, 0.2), (0.25, 0.05))


def test_what_was_kept_is_there_again(tmp_path):
    first = SampleFile(tmp_path / "samples", SUBJECT)
    first.add(4, [SAMPLE, SAMPLE])
    first.close()
    second = SampleFile(tmp_path / "samples", SUBJECT)
    second.close()
    assert second.by_stretch == {4: [SAMPLE, SAMPLE]}


def test_a_line_cut_short_is_dropped_and_can_be_written_again(tmp_path):
    path = tmp_path / "samples"
    first = SampleFile(path, SUBJECT)
    first.add(0, [SAMPLE])
    first.add(1, [SAMPLE])
    first.close()
    path.write_bytes(path.read_bytes()[:-9])
    second = SampleFile(path, SUBJECT)
    assert list(second.by_stretch) == [0]
    second.add(1, [SAMPLE])
    second.close()
    third = SampleFile(path, SUBJECT)
    third.close()
    assert third.by_stretch == {0: [SAMPLE], 1: [SAMPLE]}


@pytest.mark.parametrize("content", ['{"texts": "b", "k": 16}\n', "", "not JSON\n"])
def test_samples_of_something_else_are_refused_in_one_line(tmp_path, content):
    path = tmp_path / "samples"
    path.write_text(content)
    with pytest.raises(ConfigurationError, match="delete it or choose another --output"):
        SampleFile(path, SUBJECT)
    assert path.read_text() == content


def test_a_folder_that_is_missing_is_said_in_one_line(tmp_path):
    with pytest.raises(ConfigurationError, match="cannot use"):
        SampleFile(tmp_path / "missing" / "samples", SUBJECT)
