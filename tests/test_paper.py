"""The paper's numbers agree with each other, and the claims read off them hold in them."""

from __future__ import annotations

import re
from collections import Counter
from itertools import pairwise

import pytest

from dsna_lib import paper
from dsna_lib.data.voc import CLASS_NAMES

MINED = {row.title: row for row in paper.TABLE_III}
SOURCE = re.compile(r"[A-Z][\w ]+?( et al\.)?, \w+ 20(1[89]|2\d)(, arXiv:\d{4}\.\d{5})?")


def only(method: str, network: str | None = None, rows: tuple[paper.Published, ...] = paper.SEGMENTATION):
    """The one row of a method."""
    (row,) = [row for row in rows if (row.method, row.network) == (method, network)]
    return row


# --- Table III


def test_table_iii_quotes_the_rivals_and_not_its_own():
    assert [row.group for row in paper.TABLE_III] == ["SEC"] * 3 + ["AE w/o PSL"] * 4 + ["ours"] * 3
    assert {row.group for row in paper.TABLE_III if not row.quoted} == {"ours"}
    assert len(MINED) == len(paper.TABLE_III)


def test_tables_iii_and_iv_print_the_same_numbers():
    assert MINED["SEC, seed + constrain + expand"].miou == only("SEC").val
    assert MINED["AE, step 3"].miou == only("AE w/o PSL").val
    assert MINED["DSNA, merged"].miou == only("DSNA", "VGG-16").val


# --- Tables IV and V


@pytest.mark.parametrize(
    ("split", "blocks", "best"),
    [
        ("val", [4, 12, 10], ["ScribbleSup", "DCSP", "DSNA"]),
        ("test", [1, 11, 10], ["BoxSup", "DCSP", "DSNA"]),
    ],
)
def test_published_rows_come_in_the_papers_blocks(split, blocks, best):
    rows = paper.published(split)
    assert list(Counter(row.supervision for row in rows)) == list(paper.SUPERVISION)
    groups = [[row for row in rows if row.supervision == kind] for kind in paper.SUPERVISION]
    assert [len(group) for group in groups] == blocks
    assert [max(group, key=lambda row: getattr(row, split)).method for group in groups] == best


def test_published_keeps_the_order_within_a_block_and_leaves_out_what_has_no_number():
    kept = [row for row in paper.SEGMENTATION if row.test is not None]
    assert paper.published("test") == kept
    missing = {row.method for row in paper.SEGMENTATION} - {row.method for row in kept}
    assert missing == {"ScribbleSup", "ScribbleSup (point)", "What's the Point", "AE w/o PSL"}


def test_published_puts_other_rows_into_the_same_blocks():
    rows = paper.published("val", paper.LATER)
    assert sorted(row.method for row in rows) == sorted(row.method for row in paper.LATER if row.val is not None)
    order = [paper.SUPERVISION.index(row.supervision) for row in rows]
    assert order == sorted(order)
    assert order != [paper.SUPERVISION.index(row.supervision) for row in paper.LATER if row.val is not None]


def test_an_unknown_split_is_refused():
    with pytest.raises(ValueError, match="unknown split 'train'; published results are on 'val' or 'test'"):
        paper.published("train")


def test_only_external_sources_and_interaction_add_information():
    for row in paper.SEGMENTATION:
        assert (row.extra is None) == (row.supervision == "image labels"), row.method


def test_the_papers_own_rows_are_the_best_of_image_labels_alone():
    own = [row for row in paper.SEGMENTATION if not row.quoted]
    assert [(row.network, row.val, row.test) for row in own] == [("VGG-16", 55.4, 56.4), ("ResNet-101", 58.2, 60.1)]
    rivals = [row for row in paper.SEGMENTATION if row.supervision == "image labels" and row.quoted]
    assert max(row.val for row in rivals) < own[0].val
    assert max(row.test for row in rivals) < own[0].test


# --- Table VI


@pytest.mark.parametrize("name", paper.TABLE_VI)
def test_table_vi_recomputes_to_the_printed_mean(name):
    scores = paper.TABLE_VI[name]
    assert list(scores) == ["background", *CLASS_NAMES]
    assert round(sum(scores.values()) / len(scores), 1) == paper.TABLE_VI_MEAN[name]


def test_the_means_of_table_vi_are_those_of_tables_iv_and_v():
    for network, name in (("VGG-16", "vgg16"), ("ResNet-101", "resnet")):
        row = only("DSNA", network)
        assert (paper.TABLE_VI_MEAN[f"{name}-val"], paper.TABLE_VI_MEAN[f"{name}-test"]) == (row.val, row.test)


# --- what came later


def test_every_later_row_says_whose_number_it_is():
    for row in paper.LATER:
        assert row.quoted, row.method
        assert re.fullmatch(r"[A-Z][\w ]+?( et al\.)?, \w+ 20(1[89]|2\d)(, arXiv:\d{4}\.\d{5})?", row.source), (
            row.source
        )


def test_later_rows_are_oldest_first_and_entered_once():
    years = [int(re.search(r"\b20\d\d\b", row.source)[0]) for row in paper.LATER]
    assert years == sorted(years)
    assert len({(row.method, row.network) for row in paper.LATER}) == len(paper.LATER)
    numbers = [number for row in paper.LATER if (number := re.search(r"arXiv:(.*)", row.source))]
    assert len({number[1] for number in numbers}) == len(numbers)


def test_later_results_beat_the_papers_on_the_same_split():
    best = only("DSNA", "ResNet-101")
    for row in paper.LATER:
        assert (row.val or row.test) is not None, row.method
        assert row.val is None or best.val < row.val < 100, row.method
        assert row.test is None or best.test < row.test < 100, row.method


def test_a_later_row_belongs_to_a_family():
    assert all(row.family for row in paper.LATER)
    assert not any(row.family for row in paper.SEGMENTATION)


@pytest.mark.parametrize("method", ["RIB", "CLIMS", "WSSS-SAM", "FMA-WSSS", "MARS", "ToCo"])
def test_what_has_seen_more_than_image_labels_says_so(method):
    (row,) = (row for row in paper.LATER if row.method == method)
    assert (row.supervision == paper.LABELS) == (row.extra is None) == (method in ("RIB", "ToCo"))
    assert row.supervision != paper.LABELS or row.weights in (None, "ImageNet", "ImageNet-21k")


def test_masks_are_no_weak_supervision():
    assert paper.FULL_SUPERVISION.supervision not in paper.SUPERVISION
    assert paper.FULL_SUPERVISION.val > max(
        row.val for row in paper.LATER if row.supervision == paper.LABELS and row.val
    )


# --- claims


def test_a_claim_is_made_once():
    assert max(Counter((claim.table, claim.text) for claim in paper.CLAIMS).values()) == 1
    assert max(Counter((claim.table, claim.measure, claim.rows) for claim in paper.CLAIMS).values()) == 1


@pytest.mark.parametrize("claim", [c for c in paper.CLAIMS if c.table == "III"], ids=lambda c: c.text)
def test_claims_about_table_iii_hold_in_it_or_are_the_books(claim):
    assert claim.measure == "iou"
    if claim.source == "paper":
        assert all(MINED[low].miou < MINED[high].miou for low, high in pairwise(claim.rows))
    else:
        assert set(claim.rows) - set(MINED) <= {"CAM", "full supervision"}


def test_the_merged_map_is_held_against_every_rival_of_table_iii():
    beaten = {claim.rows[0] for claim in paper.CLAIMS if claim.table == "III" and claim.rows[-1] == "DSNA, merged"}
    assert beaten == set(MINED) - {"DSNA, merged"} | {"CAM"}
