"""All commands: each function adds the options of the command of its name, and its docstring is the help.

What the commands do stands in the modules that :data:`COMMANDS` names. They import torch, which takes seconds; nothing
here does, so that every ``--help`` answers at once.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser
from pathlib import Path
from typing import Any

from dsna_lib.book.chapters import PROFILES
from dsna_lib.cli.options import DRAWN, Commands, Group, add, add_commands, at_least, words
from dsna_lib.config.annotation import AnnotationConfig, VoidPolicy
from dsna_lib.config.attention import ModelConfig
from dsna_lib.config.crf import Backend
from dsna_lib.config.drawn import DrawnConfig, HelpConfig
from dsna_lib.config.photos import MAX_SIDE, SEGMENTED_SIDE, SHIPPED_SCALES, SHOWN
from dsna_lib.config.recipe import DataConfig, MapConfig, Source
from dsna_lib.config.segmentation import SCALES, InferenceConfig, SegmentationConfig
from dsna_lib.config.split import SplitConfig
from dsna_lib.config.tables import TITLES, Form
from dsna_lib.config.training import Device, SegmentationTraining, TrainingConfig
from dsna_lib.engine.fields import choices, types_of

ROOT = "where the data set lies (default for minivoc: the cache)"
REFINE = "for data sets: which of --kinds the CRF refines (default: merged, else the first)"
SHIPPED = "a model file written by dsna {} (default: the one that ships with the package)"


def train(parser: ArgumentParser) -> None:
    """Train an attention model."""
    _training(parser, ModelConfig, TrainingConfig)


def train_segmentation(parser: ArgumentParser) -> None:
    """Train a segmentation network on annotations."""
    parser.add_argument("--annotations", type=Path, metavar="FOLDER", help="to learn from: an ID.png for each picture")
    parser.add_argument("--truth", action="store_true", help="learn from the true masks instead: an upper bound")
    text = "leave out pictures whose annotation is missing or void everywhere, instead of refusing"
    parser.add_argument("--skip-missing", action="store_true", help=text)
    text = "SEC's losses, some of seed,expand,constrain, on the annotations as cues, instead of the cross-entropy"
    parser.add_argument("--sec", type=words, metavar="LOSSES", help=text)
    parser.add_argument("--network", metavar="NAME", help="which of the recipe's (default: the first)")
    _training(parser, SegmentationConfig, SegmentationTraining, without="loss_over_classes")


def _training(parser: ArgumentParser, model: type, training: type, without: str = "") -> None:
    _out(parser, None, "where to (default: runs/STAGE/DIGEST)")
    _recipe(parser)
    _data_set(parser, None)
    add(parser.add_argument_group("model (in place of the recipe's)"), model)
    group = parser.add_argument_group("schedule (in place of the recipe's; without one, the paper's)")
    group.add_argument("--quick", action="store_true", help="a short schedule for a CPU")
    add(group, training, *(name for name in types_of(training) if name != without))


def maps(parser: ArgumentParser) -> None:
    """Write the attention maps of pictures or a data set."""
    _pictures(parser, " (default: all of the model's)")
    parser.add_argument("--all-classes", action="store_true", help="of every class, not only of those present")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="number format of the maps")
    _out(parser, "maps", "where each ID.npz goes")
    _data_set(parser, "val")
    _attention_model(parser)
    _workers(parser, "shares of the pictures")


def annotate(parser: ArgumentParser) -> None:
    """Write pseudo-annotations of pictures or a data set."""
    _pictures(parser, "; auto: let the model guess")
    text = "longer side, in pixels, at which heat maps, overlay and CRF of pictures are made at most; 0: full size"
    parser.add_argument("--max-side", default=MAX_SIDE, help=text, **at_least(0))
    add(parser, AnnotationConfig, "foreground_threshold")
    text = "for data sets: of expansive, discriminative, merged"
    parser.add_argument("--kinds", type=words, default="merged", help=text)
    parser.add_argument("--refine", type=words, metavar="KINDS", help=REFINE)
    _out(parser, "annotations", "where to")
    _data_set(parser, "train")
    _attention_model(parser)
    _dense_crf(parser, AnnotationConfig, AnnotationConfig.crf, "tau")
    _workers(parser, "shares of a data set")


def segment(parser: ArgumentParser) -> None:
    """Write the masks of pictures or a data set, without any label."""
    _pictures(parser)
    text = "for data sets: some of single (the middle one of --scales), multi (all of them), crf (all, then the CRF) "
    parser.add_argument("--kinds", type=words, metavar="KINDS", help=text + "(default: crf, or multi without)")
    text = "longer side, in pixels, at which the network and the CRF see a picture at most; 0: its own size"
    parser.add_argument("--max-side", default=SEGMENTED_SIDE, help=text, **at_least(0))
    parser.add_argument("--archive", type=Path, metavar="FILE", help="for data sets: a .tar.gz for VOC's server, too")
    _out(parser, "segmentation", "where to")
    _data_set(parser, "val")
    group = _model_file(parser, SHIPPED.format("train-segmentation"))
    usual, shipped = (",".join(f"{scale:g}" for scale in scales) for scales in (SCALES, SHIPPED_SCALES))
    text = f"{usual}, or {shipped}, at which the shipped model has learned"
    add(group, InferenceConfig, "scales", "flip", "precision", scales=text)
    add(group, MapConfig, "batch_size", batch_size=1)
    _dense_crf(parser, InferenceConfig, InferenceConfig.crf)
    _workers(parser, "shares of a data set")


def evaluate(parser: ArgumentParser) -> None:
    """Score a folder of annotations, or those that a model makes."""
    parser.add_argument("annotations", nargs="?", type=Path, metavar="FOLDER", help="an ID.png for every picture")
    policies, text = choices(VoidPolicy), "what a predicted void counts as"
    parser.add_argument("--void", choices=policies, default=policies[0], help=text)
    parser.add_argument("--per-class", action="store_true", help="print every class, too")
    parser.add_argument("--kinds", type=words, help="with --model: of which maps (default: all it has)")
    parser.add_argument("--refine", type=words, metavar="KINDS", help=REFINE)
    _out(parser, None, "with --model: keep its annotations there (default: a temporary folder)")
    parser.add_argument("--record", metavar="NAME", help="with --model: keep the scores in results/NAME.json")
    parser.add_argument("--note", metavar="TEXT", help="with --record: limits of data or recipe, kept with the scores")
    _data_set(parser, "val", required=True)
    text = "score the annotations of this model, written by dsna train, by the protocol of Table I"
    _attention_model(parser, text)
    _dense_crf(parser, AnnotationConfig, "none", "tau")
    _workers(parser, "shares of the pictures")


def table(parser: ArgumentParser) -> None:
    """Train and measure every row of a table, and print it beside the paper's."""
    text = "one or several, which then train what they share once. IV, V and VI train nothing, they show what III "
    text += "measured beside what was published; with --recipe or --rows, IV trains the methods that it compares. "
    text += "; ".join(f"{name}: {title}" for name, title in TITLES.items())
    parser.add_argument("names", nargs="+", choices=tuple(TITLES), metavar="TABLE", help=text)
    text = "rows of one table, titles separated by semicolons, such as '0;0.5' (default: all, or the recipe's)"
    parser.add_argument("--rows", type=lambda rows: [row.strip() for row in rows.split(";")], metavar="ROWS", help=text)
    parser.add_argument("--seeds", help="train with seeds 0 .. N - 1 (default: the recipe's)", **at_least(1))
    parser.add_argument("--network", metavar="NAME", help="of the recipe's, for Table III (default: the first)")
    parser.add_argument("--format", choices=choices(Form), default="markdown", help="of what is printed")
    parser.add_argument("--note", metavar="TEXT", help="limits to be kept with the numbers (default: the recipe's)")
    _experiment(parser, "where the JSON goes, and is read from for IV, V and VI", required=False)


def reproduce(parser: ArgumentParser) -> None:
    """Make all tables of a recipe, from trainings to Table VI."""
    parser.add_argument("--dry-run", action="store_true", help="only print what there is to do, and how much")
    _experiment(parser, "where the results go")


def _experiment(parser: ArgumentParser, out: str, required: bool = True) -> None:
    _out(parser, "results", out)
    parser.add_argument("--root", type=Path, metavar="FOLDER", help=ROOT)
    text = (
        "of rows of Tables III and IV that were trained before, here or elsewhere (such as results/scores, the book's)"
    )
    also = ": those of the same recipe, data, method and seed are taken from it, new ones are added"
    parser.add_argument("--scores", type=Path, metavar="FOLDER", help=text + also)
    _recipe(parser, required, default="" if required else f" (default: {DRAWN})")
    _workers(parser, "trainings")


def figure(parser: ArgumentParser) -> None:
    """Make figures and tables of the paper, by the chapters that show them."""
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as 5, II, figure-5 or table-II; or all")
    parser.add_argument("--list", action="store_true", help="say what there is, and which chapter makes it")
    parser.add_argument("--profile", choices=PROFILES, help="the same as -p profile PROFILE (default: cpu)")
    text = "replace a parameter of the chapter, such as -p seed 1; an unknown one is refused, with those that it has"
    parser.add_argument("-p", "--parameter", nargs=2, action="append", metavar=("NAME", "VALUE"), help=text)
    text = "for print: png, pdf, svg, with commas between (default: as the chapter keeps its figures)"
    parser.add_argument("--format", type=words, metavar="LIST", help=text)
    parser.add_argument("--dpi", type=int, metavar="N", help="of bitmaps, in pixels an inch (default: 300)")
    _out(parser, None, "each figure and table gets a folder of its name in it (default: runs/figures)")


def export(parser: ArgumentParser) -> None:
    """Write a model file as ONNX, for programs without PyTorch."""
    text = "an attention model or a segmentation network, or the name of one that ships, such as efficientnet_lite0_voc"
    parser.add_argument("model", metavar="MODEL", help=text)
    _out(parser, "export", "where MODEL.onnx and MODEL.json go")
    add(parser, MapConfig, "size")
    text = "of the model, kept in the JSON file (default: that of the models that ship; nothing for others)"
    parser.add_argument("--license", metavar="TEXT", help=text)


def data(parser: ArgumentParser) -> None:
    """Make, check, download, convert or split data sets."""
    add_commands(parser, dict.fromkeys((make, check, download, convert, split), "data"), "action")


def make(parser: ArgumentParser) -> None:
    """Draw the embedded data set."""
    _out(parser, "minivoc", "where to")
    add(parser, DrawnConfig)
    group = parser.add_argument_group("beyond image labels")
    text = "also draw what methods may be told beside labels: points, scribbles, boxes, and sets of other pictures"
    group.add_argument("--with-help", action="store_true", help=f"{text} (of itself with one of the following)")
    add(group, HelpConfig)


def check(parser: ArgumentParser) -> None:
    """Count what a VOC folder holds, and open it."""
    parser.add_argument("root", type=Path, metavar="ROOT", help="VOCdevkit, VOC2012, or a folder laid out like it")
    parser.add_argument("--decode", action="store_true", help="open every picture and mask, and name the bad ones")
    text = "first write the list train_aug, from the masks in SegmentationClassAug or, converting them, in SBD's folder"
    parser.add_argument("--write-train-aug", action="store_true", help=text)


def download(parser: ArgumentParser) -> None:
    """Fetch PASCAL VOC 2012 and SBD."""
    parser.add_argument("root", type=Path, metavar="ROOT", help="VOCdevkit/VOC2012 goes there (2 GB, and SBD 1.4 GB)")
    parser.add_argument("--no-sbd", action="store_true", help="leave out SBD's masks, and with them train_aug")


def convert(parser: ArgumentParser) -> None:
    """Write a folder's labels.csv from another tool's export."""
    text = "COCO's or Label Studio's .json, Label Studio's .csv, or the .xml of CVAT for images"
    parser.add_argument("export", type=Path, metavar="EXPORT", help=text)
    parser.add_argument("root", type=Path, metavar="FOLDER", help="with the pictures; the labels.csv goes there")


def split(parser: ArgumentParser) -> None:
    """Draw a folder's training and validation pictures, into a column split of its labels.csv."""
    parser.add_argument("root", type=Path, metavar="FOLDER", help="with a labels.csv, which gets the column")
    add(parser, SplitConfig)


# --- options of several commands --------------------------------------------------------------------------------------


def _pictures(parser: ArgumentParser, labels: str | None = None) -> None:
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="pictures of any format")
    if labels is not None:
        parser.add_argument("--labels", type=words, help="classes in the pictures, such as cat,person" + labels)


def _out(parser: ArgumentParser, default: str | None, text: str) -> None:
    parser.add_argument("--out", type=Path, default=default, metavar="FOLDER", help=text)


def _data_set(parser: ArgumentParser, split: str | None, required: bool = False) -> None:
    """A split of a data set; `split` is the default, None where a recipe may name it."""
    group = parser.add_argument_group("data set" + (" (in place of the recipe's)" if split is None else ""))
    text = DataConfig.__dataclass_fields__["source"].metadata["help"]
    group.add_argument("--data", choices=choices(Source), required=required, help=text)
    group.add_argument("--root", type=Path, metavar="FOLDER", help=ROOT)
    group.add_argument("--split", default=split, help="train, train_aug, val, ...; all for all of a folder")
    group.add_argument("--limit", **at_least(1), help="only its first N pictures (default: all)")


def _recipe(parser: ArgumentParser, required: bool = False, default: str = "") -> None:
    group = parser.add_argument_group("recipe")
    text = "every number of the experiment: a TOML file, or the name of one of the book's, such as drawn or paper"
    group.add_argument("--recipe", metavar="FILE", required=required, help=text + default)
    text = "change a key of the recipe, such as training.epochs=3; may be repeated"
    group.add_argument("-p", action="append", dest="changes", metavar="KEY=VALUE", help=text)


def _workers(parser: ArgumentParser, units: str) -> None:
    group = parser.add_argument_group("workers")
    text = f"{units} at a time, each in a process with its share of the cores; with several GPUs, each on the next one"
    group.add_argument("--jobs", default=1, help=text, **at_least(1))
    text = "of a Dask cluster, such as tcp://10.0.0.1:8786, whose workers do them instead, in the same folders"
    group.add_argument("--scheduler", metavar="ADDRESS", help=text)


def _model_file(parser: ArgumentParser, text: str) -> Group:
    """A trained model and where it runs; `text` is the help on --model."""
    group = parser.add_argument_group("model")
    group.add_argument("--model", type=Path, metavar="FILE", help=text)
    group.add_argument("--device", choices=choices(Device), default="auto", help="auto: a GPU if there is one")
    return group


def _attention_model(parser: ArgumentParser, text: str = SHIPPED.format("train")) -> None:
    group = _model_file(parser, text)
    scales = ",".join(f"{scale:g}" for scale in SHOWN.scales)
    add(
        group,
        MapConfig,
        size=f"{MapConfig.size} for a data set, as in the paper; {SHOWN.size} for pictures named one by one",
        scales=f"1 for a data set; {scales} for pictures named one by one",
        flip="for pictures named one by one",
    )
    group.add_argument("--workers", default=0, help="processes that read pictures", **at_least(0))


def _dense_crf(parser: ArgumentParser, config: type, crf: str, *others: str) -> None:
    """The dense CRF of a configuration: its preset, `crf` by default, and other fields."""
    group = parser.add_argument_group("dense CRF")
    add(group, config, "crf", *others, crf=crf)
    text = "who computes it; auto: pydensecrf on a CPU where it is installed, else torch. Masks are the same but for "
    group.add_argument("--crf-backend", choices=choices(Backend), default="auto", help=text + "single pixels")
    none: dict[str, Any] = {"action": "store_const", "const": "none", "default": SUPPRESS}
    group.add_argument("--no-crf", dest="crf", help="the same as --crf none", **none)


COMMANDS: Commands = {
    train: "experiments",
    maps: "pictures",
    annotate: "pictures",
    train_segmentation: "experiments",
    segment: "pictures",
    evaluate: "pictures",
    table: "experiments",
    reproduce: "experiments",
    figure: "figure",
    export: "export",
    data: None,
}
