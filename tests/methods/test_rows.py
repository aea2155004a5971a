"""The list of methods: the paper's rows in its order, and what every one of them has."""

from __future__ import annotations

import pickle

import pytest

from dsna_lib import paper
from dsna_lib.methods import rows
from dsna_lib.methods.base import LABELS, MethodError
from dsna_lib.methods.rows import METHODS, select

PAPERS = [row.title for row in paper.TABLE_III]
# In the order in which they print; others may stand between them.
KNOWN = [
    "CAM",
    *PAPERS[:3],
    "SEC, seed + constrain + expand, floored",
    *PAPERS[3:7],
    "Grad-CAM",
    "excitation backprop",
    "contrastive excitation backprop",
    "conventional attention",
    *PAPERS[7:],
    "single stream",
    "full supervision",
]


def titles(methods) -> list[str]:
    return [method.title for method in methods if method.title in KNOWN]


def test_the_rows_are_the_papers_and_some_of_our_own():
    assert titles(METHODS.values()) == KNOWN
    assert list(METHODS)[-1] == "full supervision"
    printed = {title: METHODS[title].paper for title in PAPERS}
    assert list(printed.values()) == [45.4, 50.4, 50.7, 44.9, 49.5, 50.9, 48.8, 54.1, 52.2, 55.4]
    assert [title for title in KNOWN if METHODS[title].paper is not None] == PAPERS
    assert titles(rows.TABLE_III) == [*PAPERS, "full supervision"]


def test_those_after_the_paper_are_no_rows_of_its_tables():
    assert [method.title for method in rows.LATER] == ["DSRG", "AffinityNet", "IRN", "SEAM"]
    assert all(METHODS[method.title] is method and method.needs == LABELS for method in rows.LATER)
    assert not {*rows.LATER} & {*rows.TABLE_III, *rows.TABLE_IV, *select()}


def test_select():
    assert [method.title for method in select(["DSNA, merged", "CAM"])] == ["CAM", "DSNA, merged"]
    # CAM's annotations are those of AE's first step.
    assert titles(select()) == titles(select(())) == [*PAPERS, "full supervision"]
    assert select()[-1].title == "full supervision"
    with pytest.raises(MethodError, match=r"there is no method 'DSNA'; there is CAM; SEC, seed; .*supervision$"):
        select(["CAM", "DSNA"])
    with pytest.raises(MethodError, match="there is no method 'DSNA, merge'; did you mean 'DSNA, merged'"):
        select(["DSNA, merge"])


@pytest.mark.parametrize("method", METHODS.values(), ids=str)
def test_a_method_says_what_it_is_and_can_be_sent_to_a_worker(method):
    assert METHODS[str(method)] is method
    assert method.needs >= LABELS
    assert isinstance(hash(method), int)
    sent = pickle.loads(pickle.dumps(method))
    for name in ("title", "needs", "paper", "trains"):
        assert getattr(sent, name) == getattr(method, name)


def test_only_full_supervision_is_told_more_than_image_labels():
    assert {title for title in KNOWN if METHODS[title].needs != LABELS} == {"full supervision"}
    assert METHODS["full supervision"].needs == LABELS | {"masks"}


def test_methods_that_name_the_same_classifier_share_it():
    cam = METHODS["CAM"].trains
    assert len(cam) == 1
    for title in ("Grad-CAM", "excitation backprop", "contrastive excitation backprop", "AE, step 1", *PAPERS[:3]):
        assert METHODS[title].trains == cam, title
    erasing = [METHODS[f"AE, step {step}"].trains for step in (1, 2, 3, 4)]
    assert [len(trains) for trains in erasing] == [1, 2, 3, 4]
    assert erasing[0] < erasing[1] < erasing[2] < erasing[3]
    heads = [METHODS[title].trains for title in (*PAPERS[7:], "single stream", "conventional attention", "CAM")]
    assert heads[0] == heads[1] == heads[2]
    assert len(set(heads)) == 4
    assert METHODS["full supervision"].trains == frozenset()
