"""The ledger: what the paper defines and what it says, and where this book makes it or puts it to the test.

Two lists, in the order of the paper: :data:`DEFINITIONS`, its equations and the steps that it gives in words, and
:data:`STATEMENTS`, what it says about the world. An entry names a chapter, functions, tests and claims; the page
*Claims ledger* is made from them and from ``results/``. No number of ours stands here.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from dsna_lib import paper
from dsna_lib.paper import Claim


@dataclass(frozen=True)
class Definition:
    """An equation of the paper, or a step that it gives in words.

    Attributes:
        name: its number, or its section.
        text: what it defines, as Markdown.
        chapter: its number, as in the notebook's name.
        functions: what computes it, within ``dsna_lib``.
        test: what holds the code against it: ``FILE::FUNCTION`` in ``tests/``.
        decision: how it is read where it leaves something open; None where it is taken as printed.
        section: of the page on decisions that gives the reason, as its anchor.
    """

    name: str
    text: str
    chapter: str
    functions: tuple[str, ...]
    test: str
    decision: str | None = None
    section: str | None = None


@dataclass(frozen=True)
class Statement:
    """Something that the paper says about the world, and what answers it.

    Attributes:
        section: of the paper.
        text: what it says, in our words.
        chapter: its number, as in the notebook's name; None where no chapter takes it up.
        claims: texts of :data:`dsna_lib.paper.CLAIMS` that it comes down to.
        evidence: names of further measurements, each a function of ``tools/fill_results.py``.
        test: what shows it, where it is true by construction: ``FILE::FUNCTION`` in ``tests/``.
        unmeasured: why nothing here answers it, or what of it stays open.
    """

    section: str
    text: str
    chapter: str | None = None
    claims: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    test: str | None = None
    unmeasured: str | None = None


MODEL, MAPS, ANNOTATIONS = "the-attention-model", "from-the-maps-to-the-merged-map", "pseudo-annotations"
CRF, NETWORK, RIVALS, MEASURING = "the-dense-crf", "the-segmentation-network", "the-rivals", "measuring"

DEFINITIONS = (
    Definition(
        "Eq. 1",
        "attention before normalization, $z = F(w^\\top x + b)$",
        "03",
        ("attention.ConventionalAttention",),
        "test_attention.py::test_conventional_is_eq_1_to_4",
        "$F$ is that of Eq. 7",
        MODEL,
    ),
    Definition(
        "Eq. 2",
        "normalized over space, $a = z / \\sum z$",
        "03",
        ("attention.spatial_normalize",),
        "test_attention.py::test_attention_sums_to_one_over_space",
    ),
    Definition(
        "Eq. 3",
        "attended features, $\\hat x = x\\,a$",
        "03",
        ("attention.ConventionalAttention",),
        "test_attention.py::test_conventional_is_eq_1_to_4",
    ),
    Definition(
        "Eq. 4",
        "class scores of the attended features",
        "03",
        ("attention.ConventionalAttention",),
        "test_attention.py::test_conventional_by_hand_applies_attention_once",
        "$a$ is applied once, not twice",
        MODEL,
    ),
    Definition(
        "Eq. 5",
        "expansive detector, one $z^c$ a class",
        "04",
        ("attention.DecoupledAttention",),
        "test_attention.py::test_decoupled_is_eq_5_to_9",
    ),
    Definition(
        "Eq. 6",
        "normalized over space, for each class",
        "04",
        ("attention.spatial_normalize",),
        "test_attention.py::test_attention_sums_to_one_over_space",
    ),
    Definition(
        "Eq. 7",
        "$F(x) = \\log(1 + e^x) + \\epsilon$",
        "04",
        ("attention.shifted_softplus",),
        "test_attention.py::test_decoupled_is_eq_5_to_9",
    ),
    Definition(
        "Sec. III-B",
        "dropout right before and after the expansive convolution",
        "04",
        ("attention.DecoupledAttention", "attention.Dropout"),
        "test_attention.py::test_dropout_acts_on_the_expansive_branch_only_and_in_training_only",
        "element-wise, the second one before $F$",
        MODEL,
    ),
    Definition(
        "Eq. 8",
        "attended scores, $\\hat s = s\\,a$",
        "04",
        ("attention.DecoupledAttention",),
        "test_attention.py::test_decoupled_is_eq_5_to_9",
    ),
    Definition(
        "Eq. 9",
        "class scores of a picture, $p_c = \\sum s\\,a$",
        "04",
        ("attention.DecoupledAttention",),
        "test_attention.py::test_decoupled_by_hand",
        "a sum, though the text says average",
        MODEL,
    ),
    Definition(
        "Eq. 10",
        "loss: binary cross-entropy of each class",
        "05",
        ("attention.classification_loss",),
        "test_attention.py::test_loss_is_eq_10",
        "mean over classes; the sum is an option",
        "training",
    ),
    Definition(
        "Eq. 11",
        "merged map, $T_c = \\hat p_c A_c + (1 - \\hat p_c) S_c$",
        "06",
        ("maps.merge", "maps.score_weight"),
        "test_maps.py::test_merge_is_eq_11",
        "softmax over all classes; $S$ loses its negative part",
        MAPS,
    ),
    Definition(
        "Sec. III-C",
        "foreground: the map, min-max normalized, above 0.2",
        "07",
        ("annotate.pseudo_annotation", "maps.min_max"),
        "test_annotate.py::test_against_the_text_of_section_iii_c",
        "enlarged first",
        ANNOTATIONS,
    ),
    Definition(
        "Sec. III-C",
        "background: the channel sum of $X$, min-max normalized, below 0.3",
        "07",
        ("annotate.pseudo_annotation",),
        "test_annotate.py::test_features_are_summed_over_channels_before_scaling",
        "a constant sum gives none",
        ANNOTATIONS,
    ),
    Definition(
        "Sec. III-C",
        "conflicts go to the smallest region, the rest is void",
        "07",
        ("annotate.combine",),
        "test_annotate.py::test_regions_are_measured_before_conflicts_are_settled",
        "measured before conflicts; foreground beats background",
        ANNOTATIONS,
    ),
    Definition(
        "Eq. 12",
        "class probabilities of a void pixel",
        "07",
        ("crf.class_probabilities",),
        "test_crf.py::test_probabilities_are_eq_12_and_13",
        "$\\mathcal{C}_I$ holds the background",
        CRF,
    ),
    Definition(
        "Eq. 13",
        "class probabilities of a labeled pixel",
        "07",
        ("crf.class_probabilities",),
        "test_crf.py::test_probabilities_are_eq_12_and_13",
        "$\\tau$ is 0.7",
        CRF,
    ),
    Definition(
        "Sec. III-C",
        "dense CRF on these probabilities",
        "07",
        ("crf.refine",),
        "test_crf.py::test_refining_follows_the_edges",
        "parameters of SEC",
        CRF,
    ),
    Definition(
        "Sec. IV-A",
        "pictures: VOC 2012 with SBD, 10,582 to train, 1,449 to validate",
        "01",
        ("data.voc.load", "data.voc.check"),
        "data/test_voc.py::test_check_counts_what_is_there",
    ),
    Definition(
        "Sec. IV-A",
        "training: two rates, a tenth after 10 of 20 epochs, batches of 15",
        "05",
        ("training.train_attention", "training.TrainingConfig"),
        "test_training.py::test_rates_and_schedules",
        "rates divided by 1 - momentum",
        "training",
    ),
    Definition(
        "Sec. IV-A",
        "DeepLab-LargeFOV, crops of 321, masks of 41 x 41",
        "10",
        ("segmentation.create", "segmentation.train_segmentation"),
        "test_segmentation.py::test_the_head_of_large_fov_is_the_papers",
        "fc6 and fc7 start anew",
        NETWORK,
    ),
    Definition(
        "Sec. IV-A",
        "test time: several scales, then a dense CRF",
        "10",
        ("segmentation.segment_split", "segmentation.refined"),
        "test_segmentation.py::test_several_scales_are_averaged",
        "scales 0.7, 1 and 1.3",
        NETWORK,
    ),
    Definition(
        "Eq. 14",
        "IoU of a class, averaged over classes",
        "01",
        ("metrics.ConfusionMatrix",),
        "test_metrics.py::test_against_counting_by_loops",
        "21 classes; void counts as missed",
        MEASURING,
    ),
    Definition(
        "Eq. 15",
        "precision of a class",
        "01",
        ("metrics.ConfusionMatrix",),
        "test_metrics.py::test_void_as_false_negative_by_hand",
        "void is no wrong claim",
        MEASURING,
    ),
    Definition(
        "Eq. 16",
        "recall of a class",
        "01",
        ("metrics.ConfusionMatrix",),
        "test_metrics.py::test_void_as_false_negative_by_hand",
        "void counts as missed",
        MEASURING,
    ),
    Definition(
        "Sec. IV-B",
        "single stream: the discriminative detector alone, dropout on both sides",
        "08",
        ("attention.SingleStreamAttention",),
        "test_attention.py::test_single_stream_is_the_spatial_mean",
        "pooled by the spatial mean",
        MODEL,
    ),
    Definition(
        "Sec. IV-C",
        "SEC: seed, expand and constrain losses",
        "09",
        ("rivals.sec.SECLoss",),
        "test_rivals_sec.py::test_the_sum_is_the_sum",
        "cues of our background rule",
        RIVALS,
    ),
    Definition(
        "Sec. IV-C",
        "adversarial erasing without prohibitive segmentation learning",
        "09",
        ("rivals.adversarial_erasing.mine",),
        "test_rivals_erasing.py::test_step_two_written_out",
        "top 20 % is above 0.2 of the range",
        RIVALS,
    ),
)

_EXPANSIVE = ("the expansive map has the higher recall", "the expansive map has the higher IoU")
_DISCRIMINATIVE = ("the discriminative map has the higher precision",)
_MERGED = ("the merged map beats the expansive map in IoU", "the merged map beats the discriminative map in IoU")
_CAM = ("DSNA's merged map beats CAM in IoU", "DSNA's merged annotations beat CAM's")


def _of_table(table: str, start: str = "") -> tuple[str, ...]:
    """Texts of the paper's claims about a table that begin so."""
    return tuple(c.text for c in paper.CLAIMS if (c.table, c.source) == (table, "paper") and c.text.startswith(start))


STATEMENTS = (
    Statement(
        "I",
        "Masks are expensive; image labels are cheap.",
        "01",
        unmeasured="chapter 01 quotes the times that others took",
    ),
    Statement(
        "I, II-A",
        "The quality of the pseudo-annotations decides how well the segmentation network does.",
        "10",
        evidence=("annotations_and_masks",),
    ),
    Statement(
        "I, II-B",
        "Top-down saliency finds the most discriminative part of an object, not its extent.",
        "02",
        claims=("CAM covers less of the whole object than the merged map",),
        evidence=("cam_on_parts",),
    ),
    Statement(
        "II-B",
        "Grad-CAM generalizes CAM: on CAM's network, both give one map.",
        "02",
        evidence=("grad_cam_and_cam",),
        test="test_cams.py::test_grad_cam_of_a_pooled_linear_classifier_is_the_positive_part_of_cam",
    ),
    Statement(
        "II-B",
        "CAM is the method most widely used for weakly supervised segmentation.",
        unmeasured="a statement about the literature of its time",
    ),
    Statement(
        "II-A",
        "Early methods did badly for want of cues about places.",
        unmeasured="none of them is built here; their published scores stand in chapter 10",
    ),
    Statement(
        "II-A",
        "Methods on web data take much more data and computation.",
        unmeasured="none of them is built here",
    ),
    Statement(
        "II-C",
        "Attention had not been used for weakly supervised segmentation before.",
        unmeasured="a statement about the literature of its time",
    ),
    Statement(
        "II-C, III-A",
        "Attention enhances relevant places and suppresses others.",
        "03",
        unmeasured="chapter 03 shows the weights; no measurement of relevance is kept",
    ),
    Statement(
        "III-B",
        "One class-agnostic map cannot tell several classes apart.",
        "03",
        test="test_measure.py::test_conventional_attention_has_one_map_for_all_classes",
    ),
    Statement(
        "III-B",
        "Attention trained to classify need not give good annotations.",
        "03",
        claims=("decoupled attention (merged) beats conventional attention in IoU",),
    ),
    Statement(
        "I, III-B",
        "Both maps come from one forward pass.",
        "04",
        evidence=("forward_pass",),
        test="test_maps.py::test_compute_makes_every_map_from_one_forward_pass_in_order",
    ),
    Statement(
        "III-B",
        "The expansive map identifies object regions.",
        "06",
        claims=(*_EXPANSIVE, "the expansive map covers more of an object beside its telling part"),
    ),
    Statement(
        "III-B",
        "The discriminative map localizes the telling parts.",
        "06",
        claims=_DISCRIMINATIVE,
        evidence=("discriminative_on_parts",),
    ),
    Statement(
        "III-B",
        "Dense scores keep the spatial information that a score of the whole picture loses.",
        "04",
        test="test_attention.py::test_decoupled_is_eq_5_to_9",
    ),
    Statement(
        "III-B, IV-B.2",
        "Dropout makes the detector attend to more features than the most relevant one.",
        "08",
        claims=("recall at rate 0.7 is above that without dropout",),
    ),
    Statement(
        "III-B",
        "A small score belongs to a difficult, small object.",
        "06",
        evidence=("weight_and_size",),
    ),
    Statement(
        "III-B",
        "Weighing the maps by the score is intuitive; implied: better than equal weights.",
        "06",
        evidence=("score_or_equal_weights",),
    ),
    Statement(
        "III-C",
        "Thresholded annotations are coarse and partly unclear; a dense CRF refines them.",
        "07",
        evidence=("refined",),
    ),
    Statement(
        "IV-B.1",
        "On large objects the expansive map covers the whole, the discriminative map a part.",
        "06",
        claims=("the expansive map covers more of an object beside its telling part",),
        unmeasured="by size of the object, chapter 06 counts it live; no result is kept",
    ),
    Statement(
        "IV-B.1",
        "On small objects the expansive map is broad, the discriminative map precise.",
        "06",
        claims=_DISCRIMINATIVE,
        unmeasured="by size of the object, chapter 06 counts it live; no result is kept",
    ),
    Statement(
        "IV-B.1",
        "The expansive map has the higher recall and IoU, the discriminative map the higher precision.",
        "08",
        claims=(*_EXPANSIVE, *_DISCRIMINATIVE),
    ),
    Statement(
        "I, IV-B.1",
        "The two maps complement each other: merged, they beat either.",
        "08",
        claims=_MERGED,
    ),
    Statement(
        "IV-B.1",
        "Annotations from the merged map are close to the ground truth.",
        "07",
        evidence=("merged_iou",),
    ),
    Statement(
        "IV-B.2",
        "With the dropout rate, recall rises and precision falls, constantly.",
        "08",
        claims=_of_table("II", "recall") + _of_table("II", "precision"),
    ),
    Statement(
        "IV-B.2",
        "Suppressed features make training mine others; so the map grows.",
        unmeasured="a mechanism; only its outcome is measured, by the statement before",
    ),
    Statement(
        "IV-B.2",
        "A rate of 0.5 is a good default (Table II: better than none and than 0.7).",
        "08",
        claims=_of_table("II", "rate"),
    ),
    Statement(
        "IV-B.3",
        "A single stream does far worse than the decoupled structure.",
        "08",
        claims=_of_table("single-stream"),
    ),
    Statement(
        "IV-C",
        "SEC and adversarial erasing improve with their losses and steps as Table III lists them.",
        "09",
        claims=_of_table("III", "SEC:") + _of_table("III", "AE:"),
    ),
    Statement(
        "IV-C",
        "Merged annotations lead to better segmentation than either map's.",
        "10",
        claims=_of_table("III", "merged") + _of_table("III", "expansive"),
    ),
    Statement(
        "IV-C",
        "DSNA outperforms SEC and adversarial erasing in all their settings.",
        "10",
        claims=_of_table("III", "DSNA's"),
    ),
    Statement(
        "IV-C",
        "Mining by attention is significantly better than mining by CAM.",
        "10",
        claims=_CAM,
    ),
    Statement(
        "I, IV-C, IV-D",
        "The pipeline is simple: each network is trained once, without iterations.",
        "09",
        test="test_rivals_erasing.py::test_each_step_trains_on_the_pictures_that_the_step_before_erased",
        unmeasured="simplicity is a matter of judgment; the test counts the trainings that erasing needs",
    ),
    Statement(
        "IV-D",
        "Scribbles and points say more precisely than image labels where an object is.",
        unmeasured="none of these methods is built here; their published scores stand in chapter 10",
    ),
    Statement(
        "IV-D",
        "With VGG-16 it is ahead of all methods with the same supervision, on val and on test.",
        "10",
        evidence=("lead_vgg16",),
        unmeasured="full VOC and the test server are out of reach here",
    ),
    Statement(
        "IV-D",
        "With ResNet-101 it is further ahead.",
        "10",
        claims=("ResNet-101 beats VGG-16",),
        evidence=("lead_resnet101",),
        unmeasured="full VOC and the test server are out of reach here",
    ),
    Statement(
        "I, V",
        "The results are the state of the art among methods that see image labels only.",
        "11",
        evidence=("overtaken",),
    ),
)


def claim_numbers() -> dict[Claim, str]:
    """Each of :data:`dsna_lib.paper.CLAIMS` to its number in the ledger: its table and its place there.

    S is the single stream; M and P are the book's own tables of methods and of parts.

    Example:
        >>> list(claim_numbers().values())[:2]
        ['I.1', 'I.2']
    """
    short = {"single-stream": "S", "methods": "M", "parts": "P"}
    seen: Counter[str] = Counter()
    numbers = {}
    for claim in paper.CLAIMS:
        seen[claim.table] += 1
        numbers[claim] = f"{short.get(claim.table, claim.table)}.{seen[claim.table]}"
    return numbers


def claims_of(statement: Statement) -> list[Claim]:
    """The claims that a statement comes down to, in the order of :data:`dsna_lib.paper.CLAIMS`.

    Example:
        >>> [claim.table for claim in claims_of(STATEMENTS[2])]
        ['parts']
    """
    return [claim for claim in paper.CLAIMS if claim.text in statement.claims]
