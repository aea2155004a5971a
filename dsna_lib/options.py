"""Options of the command line, and the types of their values.

A command's options are added when it is chosen (:class:`Parser`): their defaults are read off the library's
dataclasses and functions, whose modules import torch, and ``dsna --help`` should answer at once.
"""

from __future__ import annotations

import argparse
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dsna_lib.training import TrainingConfig

EXIT_CODES = """exit codes:
  0    all done
  1    some pictures failed (each is named on stderr), all others are done
  2    wrong usage: an unknown option, class, split or kind, or options that do not go together
  3    a problem with the input or the machine: a missing or damaged file, a full disk, no GPU, no pydensecrf,
       not enough memory, a diverged training, or every picture failed; one sentence on stderr says what to do
  130  interrupted with Ctrl-C; run the same command again to go on

environment variables:
  DSNA_DEBUG    set to anything: show the traceback of an error, like --debug
  DSNA_RUNS     folder of trained models (default: runs)
  DSNA_CACHE    folder of data sets drawn on first use (default: the user's cache)
  DSNA_WEIGHTS  folder of ImageNet weight files
"""


class Help(argparse.ArgumentDefaultsHelpFormatter, argparse.RawDescriptionHelpFormatter):
    """Shows every default but None, which the help text puts into words."""

    def _get_help_string(self, action: argparse.Action) -> str | None:
        return action.help if action.default is None or action.default is False else super()._get_help_string(action)


class Parser(argparse.ArgumentParser):
    """A parser that adds its options, by calling `fill`, only when its command is chosen."""

    fill: Callable[[argparse.ArgumentParser], None] | None = None

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As usual, after `fill`."""
        if self.fill:
            fill, self.fill = self.fill, None
            fill(self)
        return super().parse_known_args(args, namespace)


def command(commands: Any, name: str, run: Callable | None, fill: Callable, text: str) -> None:
    """Add a command.

    Args:
        commands: what ``add_subparsers`` returned.
        name: of the command.
        run: from the parsed arguments to a result; None where the command has commands of its own.
        fill: adds the options to a parser.
        text: one line on what it does.
    """
    parser = commands.add_parser(name, help=text, description=text, epilog=EXIT_CODES, formatter_class=Help)
    parser.fill = fill
    if run is not None:
        parser.add_argument("--json", action="store_true", help="print one JSON object on stdout, and nothing else")
        parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
        parser.set_defaults(run=run, prog=parser.prog)


def number(kind: type, low: float, high: float = math.inf, open_ends: bool = False) -> Callable[[str], Any]:
    """An argparse type: an int or float in a range, with or without its ends.

    Example:
        >>> number(int, 1)("3")
        3
    """

    def parse(text: str) -> Any:
        value = kind(text)
        if not (low < value < high if open_ends else low <= value <= high):
            limits = f"at least {low}" if high == math.inf else f"{'between' if open_ends else 'in'} {low} .. {high}"
            raise argparse.ArgumentTypeError(f"{text} must be {limits}")
        return value

    parse.__name__ = {int: "whole number", float: "number"}[kind]  # argparse names it in its message
    return parse


def words(text: str) -> list[str]:
    """An argparse type: words separated by commas.

    Example:
        >>> words("cat, person")
        ['cat', 'person']
    """
    return [word.strip() for word in text.split(",") if word.strip()]


def span(text: str) -> tuple[float, float]:
    """An argparse type: two positive numbers, the smaller first.

    Example:
        >>> span("0.8,1.25")
        (0.8, 1.25)
    """
    low, high = (float(part) for part in text.split(","))
    if not 0 < low <= high:
        raise argparse.ArgumentTypeError(f"{text} must be two positive numbers, the smaller first")
    return low, high


def default(function: Callable, name: str) -> Any:
    """The default of a function's argument."""
    return inspect.signature(function).parameters[name].default


def pictures(parser: argparse.ArgumentParser) -> None:
    """Pictures named one by one."""
    parser.add_argument("pictures", nargs="*", type=Path, metavar="PICTURE", help="pictures of any format")


def data_set(parser: argparse.ArgumentParser, split: str, required: bool = False) -> None:
    """A split of a data set."""
    from dsna_lib.data import SOURCES

    group = parser.add_argument_group("data set")
    group.add_argument("--data", choices=SOURCES, required=required, help="the embedded set, VOC, or your own folder")
    group.add_argument("--root", type=Path, metavar="FOLDER", help="where it lies (default for minivoc: the cache)")
    group.add_argument("--split", default=split, help="train, train_aug, val, ...; all for a folder without splits")
    group.add_argument("--limit", type=number(int, 1), metavar="N", help="only its first N pictures (default: all)")


# Training crops 224 pixels out of pictures whose shorter side is 224 to 336, so objects are larger there than in a
# whole picture at 224. The paper's protocol keeps 224; for a single picture the scale of training gives finer maps.
SIZE = {"data": 224, "picture": 320}
SHIPPED = "a model file written by `dsna train` (default: the one that ships with the package)"


def model(parser: argparse.ArgumentParser, text: str = SHIPPED) -> None:
    """A trained model, and how to run it; `text` is the help on --model."""
    from dsna_lib import maps

    group = parser.add_argument_group("model")
    group.add_argument("--model", type=Path, metavar="FILE", help=text)
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    text = f"side in pixels of the square that a picture is resized to for the network (default: {SIZE['data']} for a "
    text += f"data set, as in the paper; {SIZE['picture']} for pictures named one by one)"
    group.add_argument("--size", type=number(int, 16), metavar="N", help=text)
    for name, low, purpose in (
        ("batch_size", 1, "pictures a forward pass; lower it when memory runs out"),
        ("workers", 0, "processes that read pictures"),
    ):
        usual = default(maps.compute, name)
        group.add_argument(_flag(name), type=number(int, low), default=usual, metavar="N", help=purpose)
    group.add_argument("--precision", choices=("no", "bf16"), default="no", help="no: 32-bit numbers; bf16: mixed")


def dense_crf(parser: argparse.ArgumentParser, standard: str) -> None:
    """Whether and how to run the dense CRF."""
    from dsna_lib import crf

    group = parser.add_argument_group("dense CRF")
    group.add_argument("--crf", choices=(*crf.PRESETS, "none"), default=standard, help="parameters by name")
    group.add_argument("--no-crf", action="store_const", dest="crf", const="none", help="the same as --crf none")
    tau = default(crf.class_probabilities, "tau")
    between = number(float, 0.5, 1, open_ends=True)
    group.add_argument("--tau", type=between, default=tau, help="trust in the annotation, between 0.5 and 1")
    processes = number(int, 1)
    group.add_argument("--processes", type=processes, default=1, metavar="N", help="for data sets; 0.5 GB each")


SCHEDULE = {  # fields of TrainingConfig: type or choices of their option, and help
    "epochs": (number(int, 1), "passes over the pictures"),
    "drop_after": (number(int, 0), "epoch after which the rates are divided by 10"),
    "batch_size": (number(int, 1), "pictures a step, over all processes together"),
    "backbone_rate": (number(float, 0), "learning rate of the pretrained layers"),
    "head_rate": (number(float, 0), "learning rate of the attention layers"),
    "momentum": (number(float, 0, 1), "momentum of SGD, in 0 .. 1"),
    "weight_decay": (number(float, 0), "weight decay of SGD"),
    "loss_over_classes": (("mean", "sum"), "how Eq. 10 runs over classes"),
    "crop": (number(int, 16), "side of the training crop in pixels"),
    "scales": (span, "range of the shorter side before cropping, in multiples of the crop, such as 0.8,1.25"),
    "seed": (number(int, 0), "seed of everything random"),
    "precision": (("auto", "no", "bf16", "fp16"), "no: 32-bit numbers; bf16, fp16: mixed; auto: the quickest here"),
    "workers": (number(int, 0), "processes that read pictures"),
    "checkpoint_every": (number(int, 0), "steps between checkpoints; 0: once an epoch"),
    "device": (("auto", "cpu", "cuda"), "auto: a GPU if there is one"),
}


def architecture(parser: argparse.ArgumentParser) -> None:
    """A model to train."""
    from dsna_lib.attention import ModelConfig

    group = backbone(parser)
    usual = {field.name: field.default for field in fields(ModelConfig)}
    heads = ("decoupled", "conventional", "single_stream")
    group.add_argument("--head", choices=heads, default=usual["head"], help="the attention")
    group.add_argument("--dropout", type=number(float, 0, 1), default=usual["dropout"], help="rate, in 0 .. 1")


def backbone(
    parser: argparse.ArgumentParser,
    usual_stages: str = "all",
    names: str = "vgg16, efficientnet_lite0, or a timm model",
) -> argparse._ArgumentGroup:
    """What an attention or segmentation head sits on; returns the group."""
    from dsna_lib.attention import ModelConfig

    group = parser.add_argument_group("model")
    usual = {field.name: field.default for field in fields(ModelConfig)}
    group.add_argument("--backbone", default=usual["backbone"], help=names)
    group.add_argument("--weights", default=usual["weights"], help="where it starts: imagenet, none, or a file")
    text = f"train its last N stages only (default: {usual_stages})"
    group.add_argument("--train-last", type=number(int, 0), metavar="N", help=text)
    return group


def schedule(
    parser: argparse.ArgumentParser,
    usual_is: str = "the paper's",
    without: Sequence[str] = (),
    config: type[TrainingConfig] | None = None,
    known: Mapping[str, tuple[Any, str]] = SCHEDULE,
) -> None:
    """How to train. Options not given are absent, so that --quick or a data set's recipe can put in its own."""
    from dsna_lib.training import TrainingConfig

    config = config or TrainingConfig
    group = parser.add_argument_group(f"schedule (default: {usual_is})")
    group.add_argument("--quick", action="store_true", help="a short schedule for a CPU")
    full = config()
    for name, (kind, text) in known.items():
        if name in without:
            continue
        usual = getattr(full, name)
        short = config.QUICK.get(name, usual)
        text += f" (default: {usual}" + (f"; with --quick: {short})" if short != usual else ")")
        form = {"choices": kind} if isinstance(kind, tuple) else {"type": kind, "metavar": "N"}
        group.add_argument(_flag(name), default=argparse.SUPPRESS, help=text, **form)


PRETRAINED_HEAD = "vgg16: start fc6 and fc7 from VGG-16's own, thinned out as DeepLab does; needs torchvision's file"
SEGMENTATION_SCHEDULE = {
    **{name: entry for name, entry in SCHEDULE.items() if name != "loss_over_classes"},
    "head_rate": (number(float, 0), "learning rate of the new layers; biases learn twice as fast"),
    "schedule": (("step", "poly"), "step: divide by 10 after --drop-after; poly: fall as (1 - progress) ** 0.9"),
}


def segmentation_network(parser: argparse.ArgumentParser) -> None:
    """A segmentation network to train."""
    from dsna_lib.segmentation import SegmentationConfig

    usual = {field.name: field.default for field in fields(SegmentationConfig)}
    text = "vgg16 (DeepLab-LargeFOV), resnet101, resnet50, efficientnet_lite0, or a timm model of output stride 8"
    group = backbone(parser, names=text)
    text = "of the dilated convolution (default: 1024 for vgg16, 128 for efficientnet_lite0, else 512)"
    group.add_argument("--channels", type=number(int, 1), metavar="N", help=text)
    text = "of the same, in cells of 8 pixels"
    group.add_argument("--dilation", type=number(int, 1), default=usual["dilation"], metavar="N", help=text)
    group.add_argument("--dropout", type=number(float, 0, 1), default=usual["dropout"], help="rate, in 0 .. 1")
    group.add_argument("--pretrained-head", action="store_true", help=PRETRAINED_HEAD)


def segmentation_of_tables(parser: argparse.ArgumentParser) -> None:
    """How Table III trains its segmentation networks; options not given leave it to the paper or to a recipe."""
    group = parser.add_argument_group("segmentation, for table III (default: the paper's; for minivoc the book's)")
    for name, kind, metavar, text in (
        ("split", str, "SPLIT", "which pictures are annotated and learned from (default: those of --split)"),
        ("backbone", str, "BACKBONE", "of the network (default: --backbone)"),
        ("train_last", number(int, 0), "N", "train its last N stages only"),
        ("channels", number(int, 1), "N", "of the dilated convolution"),
        ("dilation", number(int, 1), "N", "of the same, in cells of 8 pixels"),
        ("epochs", number(int, 1), "N", "passes over the pictures"),
        ("drop_after", number(int, 0), "N", "epoch after which the rates are divided by 10"),
        ("backbone_rate", number(float, 0), "RATE", "learning rate of the pretrained layers"),
        ("head_rate", number(float, 0), "RATE", "learning rate of the new layers"),
        ("batch_size", number(int, 1), "N", "pictures a step"),
        ("crop", number(int, 16), "N", "side of the training crop in pixels, 8k + 1"),
        ("scales", multiples, "S", "at which val is shown"),
    ):
        group.add_argument(f"--segment-{name.replace('_', '-')}", type=kind, metavar=metavar, help=text)
    text = "show whole pictures, squeezed into the crop's square"
    group.add_argument("--segment-whole", action="store_true", default=None, help=text)
    group.add_argument("--segment-pretrained-head", action="store_true", default=None, help=PRETRAINED_HEAD)


def inference(parser: argparse.ArgumentParser) -> None:
    """How to run a segmentation network."""
    from dsna_lib import crf, photos, segmentation

    group = parser.add_argument_group("model")
    text = "a file written by `dsna train-segmentation` (default: the one that ships with the package)"
    group.add_argument("--model", type=Path, metavar="FILE", help=text)
    group.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto", help="auto: a GPU if there is one")
    usual, shipped = (",".join(map(str, scales)) for scales in (segmentation.SCALES, photos.SHIPPED_SCALES))
    text = "multiples of the picture's size at which it is shown, separated by commas "
    text += f"(default: {usual}, or {shipped}, at which the shipped model has learned)"
    group.add_argument("--scales", type=multiples, metavar="S", help=text)
    group.add_argument("--flip", action="store_true", help="show it mirrored, too")
    for name, low, purpose in (
        ("batch_size", 1, "pictures read at a time; those of one size share a forward pass"),
        ("workers", 0, "processes that read pictures"),
        ("processes", 1, "processes that run the CRF; 0.5 GB each"),
    ):
        usual = default(segmentation.segment_split, name)
        group.add_argument(_flag(name), type=number(int, low), default=usual, metavar="N", help=purpose)
    group.add_argument("--precision", choices=("no", "bf16"), default="no", help="no: 32-bit numbers; bf16: mixed")
    presets = (*crf.PRESETS, "none")
    group.add_argument("--crf", choices=presets, default="segmentation", help="parameters by name")
    group.add_argument("--no-crf", action="store_const", dest="crf", const="none", help="the same as --crf none")


def multiples(text: str) -> tuple[float, ...]:
    """An argparse type: positive numbers separated by commas.

    Example:
        >>> multiples("0.7, 1")
        (0.7, 1.0)
    """
    found = tuple(float(word) for word in words(text))
    if not found or min(found) <= 0:
        raise argparse.ArgumentTypeError(f"{text} must be positive numbers separated by commas")
    return found


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"
