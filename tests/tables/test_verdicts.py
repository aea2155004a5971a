"""One rule for claims: its intervals are those of textbooks where these have one, and noise is seldom called firm."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from dsna_lib import paper
from dsna_lib.tables import verdicts
from dsna_lib.tables.verdicts import Comparison, Evidence, claim_verdicts, compare, holm, trend, verdict


def evidence(setting: str, pictures: np.ndarray) -> Evidence:
    """Of a mean over pictures: ``(S, N)``, a number for each training and picture."""
    number = pictures.shape[1]
    with np.errstate(invalid="ignore"):  # without the only picture there is nothing
        without = (pictures.sum(axis=1, keepdims=True) - pictures) / (number - 1)
    return Evidence(setting, pictures.mean(axis=1), without)


def alike(setting: str, scores: list[float], pictures: int = 50) -> Evidence:
    """Trainings in which each picture has the same score."""
    return evidence(setting, np.repeat(np.array(scores)[:, None], pictures, axis=1))


def test_where_pictures_are_alike_it_is_welchs_test():
    one, other = [40.0, 41.5, 39.0], [43.0, 42.0, 47.0]
    compared = compare([alike("a", one), alike("b", other)], [-1, 1])
    known = stats.ttest_ind(other, one, equal_var=False)
    assert compared.difference == pytest.approx(np.mean(other) - np.mean(one))
    assert compared.p == pytest.approx(known.pvalue, rel=1e-6)
    assert (compared.low, compared.high) == pytest.approx(tuple(known.confidence_interval(0.95)), rel=1e-6)


def test_readings_of_the_same_trainings_are_paired():
    one, other = [40.0, 41.5, 39.0], [41.0, 42.4, 40.1]
    compared = compare([alike("a", one), alike("a", other)], [-1, 1])
    known = stats.ttest_rel(other, one)
    assert compared.p == pytest.approx(known.pvalue, rel=1e-6)
    assert (compared.low, compared.high) == pytest.approx(tuple(known.confidence_interval(0.95)), rel=1e-6)
    assert compare([alike("a", one), alike("b", other)], [-1, 1]).p > 0.2


def test_where_trainings_are_alike_it_is_a_paired_test_over_pictures():
    random = np.random.default_rng(0)
    one, other = random.normal(40, 9, 30), random.normal(43, 9, 30)
    compared = compare([evidence("a", np.tile(one, (3, 1))), evidence("b", np.tile(other, (3, 1)))], [-1, 1])
    known = stats.ttest_rel(other, one)
    assert compared.p == pytest.approx(known.pvalue, rel=1e-6)
    assert (compared.low, compared.high) == pytest.approx(tuple(known.confidence_interval(0.95)), rel=1e-6)


def test_both_kinds_of_luck_add_up():
    random = np.random.default_rng(1)
    one, other = random.normal(40, 9, (4, 30)), random.normal(43, 9, (4, 30))
    apart = [evidence("a", one), evidence("b", other)]
    compared = compare(apart, [-1, 1])
    of_trainings = (one.mean(axis=1).var(ddof=1) + other.mean(axis=1).var(ddof=1)) / 4
    of_pictures = (other - one).mean(axis=0).var(ddof=1) / 30
    width = (compared.high - compared.low) / 2
    assert width / np.sqrt(of_trainings + of_pictures) == pytest.approx(2.0, abs=0.2)  # Student's t of many degrees


def test_of_a_single_picture_the_trainings_alone_count():
    compared = compare([alike("a", [40.0, 41.0, 42.0], 1), alike("b", [43.0, 44.0, 45.5], 1)], [-1, 1])
    assert compared.p == pytest.approx(stats.ttest_ind([43, 44, 45.5], [40, 41, 42], equal_var=False).pvalue)


def test_one_training_has_a_difference_and_nothing_more():
    compared = compare([alike("a", [40.0]), alike("b", [43.0])], [-1, 1])
    assert compared.difference == 3
    assert np.isnan([compared.low, compared.high, compared.p]).all()
    assert verdict(compared, compared.p) == "one training: no verdict"


def test_rows_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="as many trainings and pictures"):
        compare([alike("a", [40.0, 41.0]), alike("b", [43.0])], [-1, 1])


@pytest.mark.parametrize(
    ("difference", "trainings", "p", "said"),
    [
        (2.0, 3, 0.049, "holds"),
        (-2.0, 5, 0.001, "contradicted"),
        (2.0, 5, 0.051, "not separated"),
        (2.0, 5, np.nan, "not separated"),
        (2.0, 2, 0.001, "2 trainings: no verdict"),
    ],
)
def test_verdicts(difference, trainings, p, said):
    assert verdict(Comparison(difference, 0, 0, 0, trainings), p) == said


def test_a_trend_is_one_slope():
    rows = [alike(str(k), [40.0 + 2 * k, 40.5 + 2 * k]) for k in range(4)]
    assert compare(rows, trend(rows)).difference == pytest.approx(6)
    bent = [alike(str(k), [score, score]) for k, score in enumerate((40.0, 45.0, 43.0, 46.0))]
    slope = np.polyfit(range(4), [40.0, 45.0, 43.0, 46.0], 1)[0]
    assert compare(bent, trend(bent)).difference == pytest.approx(3 * slope)
    alone = alike("a", [4.0, 5.0, 6.0])
    assert compare([alone], trend([alone])).p == pytest.approx(stats.ttest_1samp([4, 5, 6], 0).pvalue)


def test_holm_by_hand():
    assert holm([0.01, np.nan, 0.02, 0.5, 0.3])[::2] == [0.04, 0.06, 0.6]
    assert np.isnan(holm([0.01, np.nan])[1])
    assert holm([0.9, 0.8]) == [1, 1]


def of_rows(values: dict[str, dict[str, list[float]]]):
    """What :func:`claim_verdicts` asks: rows of one setting each, by title and measure."""
    return lambda title, measure: alike(title, values[title][measure]) if measure in values.get(title, {}) else None


def test_what_was_not_measured_is_not_judged():
    """Photographs have no masks of parts: claims about them are open, the other is judged."""
    whole = {"CAM": {"whole": [40.0, 40.1, 40.2]}, "DSNA, merged": {"whole": [45.0, 45.1, 45.2]}}
    (judged,) = claim_verdicts("parts", of_rows(whole))
    assert judged["text"] == "CAM covers less of the whole object than the merged map"
    assert (judged["difference"], judged["trainings"], judged["verdict"]) == (5, 3, "holds")
    assert judged["p"] == judged["corrected"] < 0.001
    assert claim_verdicts("parts", of_rows({"CAM": {"whole": [40.0]}})) == []


def test_the_claims_of_a_table_are_corrected_together():
    titles = {title for claim in paper.CLAIMS if claim.table == "single-stream" for title in claim.rows}
    random = np.random.default_rng(2)
    values = {title: {m: random.normal(40, 1, 3).tolist() for m in ("precision", "recall", "iou")} for title in titles}
    judged = claim_verdicts("single-stream", of_rows(values))
    assert len(judged) == 5
    wanted = holm([each["p"] for each in judged])
    assert [each["corrected"] for each in judged] == pytest.approx(wanted, abs=0.0005)
    assert max(each["corrected"] / each["p"] for each in judged) > 1


def test_noise_is_seldom_called_firm():
    """Of 400 comparisons without any effect, whatever the luck of trainings and pictures, at most about one in 20."""
    random = np.random.default_rng(3)
    for trainings in (3, 5):
        firm = 0
        for _ in range(400):
            pictures = random.normal(0, 10, (2, 1, 60)) + random.normal(0, 1, (2, trainings, 1))
            rows = [evidence(str(k), each + random.normal(0, 5, each.shape)) for k, each in enumerate(pictures)]
            firm += compare(rows, [-1, 1]).p <= verdicts.LEVEL
        assert firm / 400 < 0.075
