"""Profiles: what is read back, what is refused."""

from __future__ import annotations

import base64
import json

import pytest

from schemas.codebook import MAX_RANKED_IDS, Codebook
from schemas.errors import OutOfRange
from schemas.messages import MAX_JSON_BYTES, VocabularyMark, parse_message
from schemas.profile import (
    MAX_DICTIONARY_BYTES,
    MAX_TABLE_ENTRIES,
    EstimatorReport,
    KRule,
    KRuleReport,
    LearnedModel,
    LinearFit,
    Profile,
    ResidualTable,
    StartingThreshold,
)
from schemas.sampling import SamplingParameters
from tests.profiles import PAIR, made_up_profile

OTHER_MARK = VocabularyMark(num_tokens=4000, digest="cd" * 16)


def test_a_profile_comes_back_from_its_bytes_unchanged():
    profile = made_up_profile()
    assert parse_message(Profile, profile.to_bytes()) == profile


@pytest.mark.parametrize(
    "change",
    [
        {"draft_digest": "02" * 16},
        {"target": "other"},
        {"target_vocabulary": OTHER_MARK},
        {"draft_vocabulary": OTHER_MARK},
    ],
)
def test_another_pair_has_another_id_and_is_refused_in_one_line(change):
    profile, other = made_up_profile(), PAIR.model_copy(update=change)
    assert profile.id != other.id
    misfit = profile.misfit(other)
    assert misfit is not None
    assert "\n" not in misfit
    assert "calibrate this pair" in misfit
    assert profile.misfit(PAIR) is None


def test_the_name_of_the_draft_model_is_not_part_of_the_id():
    assert PAIR.model_copy(update={"draft": "renamed"}).id == PAIR.id


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"version": 2}, "version"),
        ({"default_estimator": "unheard of"}, "Profile"),
        ({"dictionary": "not base64!"}, "dictionary"),
        ({"dictionary": base64.b64encode(bytes(MAX_DICTIONARY_BYTES + 1)).decode()}, "dictionary"),
        ({"dictionary": base64.b64encode(b"\x37\xa4\x30\xec broken").decode()}, "dictionary"),
        ({"ranked_ids": [3, 4, 3]}, "ranked_ids"),
        ({"ranked_ids": [-1]}, "ranked_ids.0"),
        ({"ranked_ids": [2**24]}, "ranked_ids.0"),
        ({"ranked_ids": list(range(MAX_RANKED_IDS + 1))}, "ranked_ids"),
        ({"k": 0}, "k"),
        ({"mean_beta": 1.5}, "mean_beta"),
        ({"estimators": []}, "estimators"),
    ],
)
def test_a_profile_that_breaks_a_rule_is_refused_by_the_field_at_fault(change, field):
    broken = made_up_profile().model_dump_json()
    data = Profile.model_validate_json(broken).model_dump(mode="json") | change
    with pytest.raises(OutOfRange) as caught:
        parse_message(Profile, json.dumps(data).encode())
    assert caught.value.what == field


def test_columns_of_different_lengths_are_refused():
    with pytest.raises(ValueError, match="differ in number"):
        ResidualTable(keys=(1, 2), thousandths=(3,))


def test_the_largest_tables_fit_a_json_message():
    profile = made_up_profile()
    full = ResidualTable(
        keys=tuple(2**31 + key for key in range(MAX_TABLE_ENTRIES)), thousandths=(-1000,) * MAX_TABLE_ENTRIES
    )
    small = ResidualTable(
        keys=tuple(2**23 + key for key in range(MAX_TABLE_ENTRIES)), thousandths=(-1000,) * MAX_TABLE_ENTRIES
    )
    tables = {
        "draft_token": small,
        "previous_token": small,
        "pair": full,
        "alternative": full,
        "triple": full,
    }
    learned = profile.learned.model_copy(update=tables)
    codebook = {
        "dictionary": base64.b64encode(bytes(MAX_DICTIONARY_BYTES)).decode(),
        "ranked_ids": tuple(2**23 + rank for rank in range(MAX_RANKED_IDS)),
    }
    largest = profile.model_copy(update={"learned": learned, **codebook})
    assert len(largest.to_bytes()) < MAX_JSON_BYTES


def test_a_profile_has_a_codebook_where_it_has_a_dictionary():
    profile = made_up_profile().model_copy(update={"dictionary": None, "ranked_ids": (5,)})
    assert profile.codebook() is None
    book = profile.model_copy(update={"dictionary": base64.b64encode(b"words").decode()}).codebook()
    assert book is not None
    assert book.digest == Codebook(b"words", (5,)).digest


def test_a_start_is_that_of_the_largest_risk_that_is_not_above_the_one_set():
    profile = made_up_profile()
    starts = {start.risk: start.threshold for start in profile.estimators[0].thresholds}
    name = profile.estimators[0].name
    assert profile.start_for(name, 0.02) == starts[0.02]
    assert profile.start_for(name, 0.029) == starts[0.02]
    assert profile.start_for(name, 0.5) == starts[0.1]
    assert profile.start_for(name, 0.001) is None
    assert profile.start_for("unheard of", 0.02) is None


def test_a_profile_has_exactly_this_text():
    table = ResidualTable(keys=(5, 9), thousandths=(-12, 250))
    start = StartingThreshold(risk=0.02, threshold=0.25, skipped=0.5)
    profile = Profile(
        pair=PAIR,
        sampling=SamplingParameters(),
        k=16,
        fitted=700,
        held_out=300,
        mean_beta=0.25,
        estimators=(EstimatorReport(name="entropy", auroc=0.875, correlation=0.5, thresholds=(start,)),),
        default_estimator="entropy",
        linear=LinearFit(slope=0.75, intercept=-0.0625, risk_averse=0.125),
        learned=LearnedModel(
            features=("f",),
            means=(0.5,),
            scales=(2.0,),
            weights=(1.5,),
            intercept=-1.0,
            draft_token=table,
            previous_token=table,
            pair=table,
            alternative=table,
            triple=table,
        ),
        k_rule=KRule(name="cost", k=16, least_share=0.0625),
        k_rules=(
            KRuleReport(
                rule=KRule(name="fixed", k=4),
                skipped=0.5,
                mean_k=3.5,
                frame_bytes=20.5,
                rejected=0.25,
                cost=25.875,
            ),
        ),
    )
    mark = '{"num_tokens":4096,"digest":"' + "ab" * 16 + '"}'
    columns = '{"keys":[5,9],"thousandths":[-12,250]}'
    assert profile.to_bytes().decode() == (
        '{"version":1,"pair":{"draft":"draft","draft_digest":"'
        + "01" * 16
        + '","draft_vocabulary":'
        + mark
        + ',"target":"target","target_vocabulary":'
        + mark
        + '},"sampling":{"temperature":0.7,"top_p":1.0,"min_p":0.0},"k":16,"fitted":700,"held_out":300,'
        '"mean_beta":0.25,"estimators":[{"name":"entropy","auroc":0.875,"correlation":0.5,"thresholds":'
        '[{"risk":0.02,"threshold":0.25,"skipped":0.5}]}],"default_estimator":"entropy","linear":'
        '{"slope":0.75,"intercept":-0.0625,"risk_averse":0.125},"learned":{"features":["f"],"means":[0.5],'
        '"scales":[2.0],"weights":[1.5],"intercept":-1.0,"draft_token":'
        + columns
        + ',"previous_token":'
        + columns
        + ',"pair":'
        + columns
        + ',"alternative":'
        + columns
        + ',"triple":'
        + columns
        + '},"k_rule":{"name":"cost","k":16,"least_share":0.0625,"max_left_out":0.0},"k_rules":'
        '[{"rule":{"name":"fixed","k":4,"least_share":0.0,"max_left_out":0.0},"skipped":0.5,"mean_k":3.5,'
        '"frame_bytes":20.5,"rejected":0.25,"cost":25.875}],"rejection_bytes":125.0,"ranked_ids":[]}'
    )
    assert profile.id == "48ae7a533a7a899efcdb775ad72a8120"
