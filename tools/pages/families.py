"""The methods of Table IV and four later ones, by family: what each is told, its idea, its length and printed score.

The one sentence that says what makes a method that method stands here and nowhere else: the pages of the families and
*Kinds of help* show it. It is not read off the methods' files, where changing a word makes every trained row another
run. What a method is told, what its paper prints, its year and its lines are read where they are.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cache, partial

from dsna_lib import paper
from dsna_lib.methods.base import LABELS
from dsna_lib.methods.rows import METHODS
from dsna_lib.tables.render import markdown
from pages.stored import ROOT

METHOD_FILES = ROOT / "dsna_lib" / "methods"
BIBLIOGRAPHY = ROOT / "book" / "references.bib"


@dataclass(frozen=True)
class Entry:
    """A method on the page of its family.

    Attributes:
        title: of the row in the library.
        file: its module in ``dsna_lib/methods``.
        cite: key of its paper in ``book/references.bib``.
        idea: what makes it that method, in one sentence.
        name: what pages call it; the title where None.
        printed: what :mod:`dsna_lib.paper` calls it; the title where None.
        network: whose printed score is meant where the paper prints several.
    """

    title: str
    file: str
    cite: str
    idea: str
    name: str | None = None
    printed: str | None = None
    network: str | None = None


INTERACTIVE = (
    Entry(
        "ScribbleSup",
        "scribble_sup",
        "lin2016scribblesup",
        "a minimum cut through a graph of superpixels spreads each stroke to what looks alike",
    ),
    Entry(
        "ScribbleSup (point)",
        "scribble_sup",
        "lin2016scribblesup",
        "the graph of ScribbleSup, with strokes of one pixel",
    ),
    Entry(
        "What's the Point",
        "whats_the_point",
        "bearman2016point",
        "the network's loss is that of the image labels, plus the cross-entropy at the points",
    ),
    Entry(
        "BoxSup",
        "box_sup",
        "dai2015boxsup",
        "of many candidate segments, each box takes the one that fits it and agrees with the network's probabilities",
    ),
)
EXTERNAL = (
    Entry(
        "STC",
        "stc",
        "wei2017stc",
        "saliency labels pictures of one class; a network that learned from those labels annotates all others",
    ),
    Entry(
        "Co-segmentation",
        "co_segmentation",
        "shen2017cosegmentation",
        "what the pictures of one search have in common is the object; a network that learned from these masks "
        "annotates the training pictures",
    ),
    Entry(
        "Webly-supervised",
        "webly",
        "jin2017webly",
        "in pictures on plain ground, the color of the ground gives the mask and the search gives the class; a network "
        "that learned from them annotates the training pictures",
    ),
    Entry(
        "Crawled-Video",
        "crawled_video",
        "hong2017crawled",
        "what is attended to and moves on its own is cut out of clips; a network that learned from these masks "
        "annotates the training pictures",
    ),
    Entry(
        "TransferNet",
        "transfer_net",
        "hong2016transfernet",
        "a decoder from attention to masks learns on other classes, and is applied to these",
    ),
    Entry(
        "AF-MCG",
        "region_hierarchies",
        "qi2016augmented",
        "classified regions, as in AF-SS, that come from a hierarchy of boundaries at several scales",
    ),
    Entry(
        "Joon et al.",
        "guided_labeling",
        "oh2017saliency",
        "each connected salient region takes the class of the classifier's seeds that it meets",
    ),
    Entry(
        "DCSP",
        "dcsp",
        "chaudhry2017dcsp",
        "the harmonic mean of saliency and a class's attention must be high",
        network="VGG-16",
    ),
    Entry(
        "Mining-pixels",
        "mining_pixels",
        "hou2016mining",
        "in pictures of one class, either saliency or attention makes a pixel the class's; a network that learned from "
        "those labels annotates all others",
    ),
    Entry(
        "AE-PSL",
        "prohibitive_segmentation",
        "wei2017erasing",
        "the network learns from adversarial erasing's masks and from its own answers, which a classifier's "
        "probabilities weight",
    ),
)
LABELS_ALONE = (
    Entry(
        "MIL-FCN",
        "mil_fcn",
        "pathak2015mil",
        "each class that is present is asked for at the one location where the network finds it most probable",
    ),
    Entry(
        "EM-Adapt",
        "em_adapt",
        "papandreou2015em",
        "the network learns from its own answer, in which biases give each present class a least share of the picture",
    ),
    Entry(
        "BFBP",
        "bfbp",
        "saleh2016prior",
        "the activations of a pretrained network mark the foreground before anything is learned, and the image label "
        "names it",
    ),
    Entry(
        "DCSM",
        "dcsm",
        "shimoda2016dcsm",
        "the map of a class is by how much the slopes of its score exceed those of other classes' scores",
    ),
    Entry(
        "SEC, seed + constrain + expand",
        "sec",
        "kolesnikov2016sec",
        "three losses: few seeds are fitted, the image label bounds each class's share of the picture, and segments "
        "end at edges",
        name="SEC",
        printed="SEC",
    ),
    Entry(
        "AF-SS",
        "augmented_feedback",
        "qi2016augmented",
        "regions of the picture are classified as wholes, and each pixel takes the mean over all regions that hold it",
    ),
    Entry(
        "Two-phase",
        "two_phase",
        "kim2017twophase",
        "a second network learns from features that are set to zero where the first one's map is high, and both maps "
        "are united",
    ),
    Entry(
        "Anirban et al.",
        "bottom_up_top_down",
        "roy2017combining",
        "a location needs evidence from below, what it adds to the class's score, and from above, attention that comes "
        "down from the class",
    ),
    Entry(
        "AE, step 3",
        "adversarial_erasing",
        "wei2017erasing",
        "mine a region, paint over it, train a new classifier on what is left, and mine again",
        name="Adversarial erasing",
        printed="AE w/o PSL",
    ),
    Entry(
        "DSNA, merged",
        "dsna",
        "zhang2019dsna",
        "one branch learns attention that expands over the object, another one scores each location, and both maps are "
        "merged",
        name="DSNA",
        printed="DSNA",
        network="VGG-16",
    ),
)
LATER = (
    Entry(
        "DSRG",
        "dsrg",
        "huang2018dsrg",
        "seeds grow while the network learns, to neighbors where the probability of the seed's class is high",
    ),
    Entry(
        "AffinityNet",
        "affinity_net",
        "ahn2018affinitynet",
        "a network learns features that are near where two locations share a class, and maps walk along that nearness",
    ),
    Entry(
        "IRN",
        "irn",
        "ahn2019irnet",
        "a network learns boundaries from pairs of locations, and maps walk without crossing any",
        printed="IRNet",
    ),
    Entry(
        "SEAM",
        "seam",
        "wang2020seam",
        "the map of a rescaled picture must be the rescaled map, and locations with like features correct each other",
    ),
)
FAMILIES = {"interactive": INTERACTIVE, "external": EXTERNAL, "labels_alone": LABELS_ALONE, "later": LATER}
MASKS = Entry("full supervision", "full_supervision", "", "the network learns from the true masks")


def printed(entry: Entry) -> paper.Published:
    """The row of Table IV, or of the list of later papers, that quotes a method.

    Raises:
        ValueError: there is none, or there are several.
    """
    name = entry.printed or entry.title
    rows = (*paper.SEGMENTATION, *paper.LATER)
    (row,) = (row for row in rows if row.method == name and entry.network in (None, row.network))
    return row


@cache
def years() -> dict[str, str]:
    """Key to year of what the book cites."""
    entries = re.findall(r"(?ms)^@\w+\{([^,]+),(.*?)^\}", BIBLIOGRAPHY.read_text(encoding="utf-8"))
    return {key: match[1] for key, fields in entries if (match := re.search(r"year\s*=\s*\{(\d{4})\}", fields))}


def lines(entry: Entry) -> int:
    """How many lines a method's own file has."""
    return len((METHOD_FILES / f"{entry.file}.py").read_text(encoding="utf-8").splitlines())


def needs(entry: Entry) -> str:
    """What a method is told here beside image labels; empty where it is told nothing."""
    return ", ".join(f"`{kind}`" for kind in sorted(METHODS[entry.title].needs - LABELS))


def told(entry: Entry) -> str:
    """What a method is told beside image labels in its paper, and here where that is something else."""
    theirs, here = printed(entry).extra, needs(entry)
    if theirs is None:
        return here or "-"
    return here if here == f"`{theirs}`" else f"{theirs}; here {here or 'nothing'}"


def linked(entry: Entry) -> str:
    """A method's name as a link to its file in the reference."""
    return f"{{py:mod}}`{entry.name or entry.title} <dsna_lib.methods.{entry.file}>`"


def score(entry: Entry) -> str:
    """The mIoU that is printed of a method, and of which network where the source says it."""
    row = printed(entry)
    return f"{row.val:.1f}" + (f" ({row.network})" if row.network else "")


def family(entries: Iterable[Entry]) -> str:
    """The table at the top of a family's page."""
    rows = [
        [linked(each), years()[each.cite], told(each), each.idea, str(lines(each)), score(each)] for each in entries
    ]
    head = ["method", "year", "told beside image labels", "in one sentence", "lines of its file", "mIoU printed"]
    return markdown(head, rows, words=head[:4])


def who_is_told_what() -> str:
    """The methods that are told more than image labels, and full supervision."""
    helped = [entry for entries in FAMILIES.values() for entry in entries if needs(entry)]
    head = ["method", "beside image labels", "in one sentence"]
    return markdown(head, [[linked(each), needs(each), each.idea] for each in (*helped, MASKS)], words=head)


BLOCKS: dict[str, Callable[[], str]] = {
    **{f"family_{name}": partial(family, entries) for name, entries in FAMILIES.items()},
    "who_is_told_what": who_is_told_what,
}
