"""The command line, thin over the library: ``dsna train``, ``annotate``, ``segment`` and what goes with them.

A command takes the parsed arguments and returns a dict; :func:`main` names what failed, prints the dict with
``--json``, and turns it into an exit code. Library modules are imported inside the commands: torch takes seconds.
"""

from __future__ import annotations

import argparse
import contextlib
import errno
import json
import math
import os
import sys
import tempfile
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dsna_lib import __version__, options

if TYPE_CHECKING:
    import numpy as np
    import torch

    from dsna_lib import pipelines, tables
    from dsna_lib.attention import AttentionModel
    from dsna_lib.chapters import Exhibit
    from dsna_lib.data import Pictures
    from dsna_lib.maps import PictureMaps
    from dsna_lib.metrics import ConfusionMatrix
    from dsna_lib.runs import Run
    from dsna_lib.segmentation import SegmentationModel
    from dsna_lib.training import TrainingConfig

CHECKPOINT = Path(__file__).parent / "checkpoints" / "efficientnet_lite0_voc.pth"
SEGMENTATION_CHECKPOINT = CHECKPOINT.with_name("efficientnet_lite0_voc_segmentation.pth")


class UsageError(ValueError):
    """The command was asked for something that does not exist or does not go together."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run a command.

    Args:
        argv: its words, such as ``["annotate", "cat.jpg", "--labels", "cat"]``; None for the program's own.

    Returns:
        The exit code; ``dsna --help`` lists them.

    Example:
        >>> main(["data", "make", "--out", "minivoc"])  # doctest: +SKIP
        0
    """
    try:
        args = _parser().parse_args(argv)
        return _report(args, _run(args))
    except SystemExit as stop:  # argparse has said why
        return int(stop.code or 0)
    except KeyboardInterrupt:
        print("dsna: interrupted; run the same command again to go on", file=sys.stderr)
        return 130


def _parser() -> argparse.ArgumentParser:
    text = "Decoupled spatial neural attention: from pictures with image labels to pseudo-annotations."
    parser = options.Parser("dsna", description=text, epilog=options.EXIT_CODES, formatter_class=options.Help)
    parser.add_argument("--version", action="version", version=f"dsna-book {__version__}")
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    for name, run, fill, text in (
        ("train", _train, _train_options, "train an attention model"),
        ("maps", _maps, _maps_options, "write the attention maps of pictures or a data set"),
        ("annotate", _annotate, _annotate_options, "write pseudo-annotations of pictures or a data set"),
        (
            "train-segmentation",
            _train_segmentation,
            _train_segmentation_options,
            "train a segmentation network on annotations",
        ),
        ("segment", _segment, _segment_options, "write the masks of pictures or a data set, without any label"),
        ("evaluate", _evaluate, _evaluate_options, "score a folder of annotations, or those that a model makes"),
        ("table", _tables, _tables_options, "train and measure every row of a table, and print it beside the paper's"),
        ("figure", _figures, _figures_options, "make figures and tables of the paper, by the chapters that show them"),
        ("data", None, _data_commands, "make, check or download data sets"),
    ):
        options.command(commands, name, run, fill, text)
    return parser


def _run(args: argparse.Namespace) -> dict[str, Any]:
    try:
        return args.run(args)
    except Exception as error:
        if args.debug or os.environ.get("DSNA_DEBUG"):
            traceback.print_exc()
        return {"error": _sentence(error), "code": 2 if isinstance(error, UsageError) else 3}


def _report(args: argparse.Namespace, result: dict[str, Any]) -> int:
    """Say what failed, print the JSON, and return the exit code."""
    failed, code = result.get("failed", {}), result.pop("code", 0)
    if failed and not code:
        code = 1 if result["done"] else 3
    if _speaks():
        for name, reason in failed.items():
            print(f"{args.prog}: {name}: {reason}", file=sys.stderr)
        if "error" in result:
            print(f"{args.prog}: error: {result['error']}", file=sys.stderr)
        if args.json:
            print(json.dumps(_plain(result), allow_nan=False))
    return code


def _speaks() -> bool:
    """Whether this is the process that prints, of those that ``accelerate launch`` started."""
    return os.environ.get("RANK", "0") == "0"


def _say(args: argparse.Namespace, text: str) -> None:
    """Print for people: on stdout, or on stderr where stdout is for JSON."""
    if _speaks():
        print(text, file=sys.stderr if args.json else sys.stdout)


def _sentence(error: BaseException) -> str:
    """What an error means to somebody who did not write the code."""
    text = str(error)
    if "Traceback (most recent call last)" in text:  # sent by a worker process; its last line is the error
        text = text.strip().splitlines()[-1].partition(": ")[2]
    elif isinstance(error, OSError) and error.strerror:
        text = f"{error.filename}: {error.strerror}" if error.filename else error.strerror
    if isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError" or "can't allocate memory" in text:
        return "out of memory: lower --batch-size, --workers, --processes or --max-side, those that this command has"
    if isinstance(error, OSError | ValueError | RuntimeError | ImportError):
        return text or type(error).__name__
    return f"unexpected {type(error).__name__}: {text} (--debug shows where it happened)"


def _plain(value: Any) -> Any:
    """Values that JSON knows: paths become strings, NaN becomes null."""
    if isinstance(value, dict):
        return {key: _plain(inner) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return str(value) if isinstance(value, Path) else value


# --- what the commands share ------------------------------------------------------------------------------------------


def _load(args: argparse.Namespace) -> Pictures:
    from dsna_lib import data
    from dsna_lib.data.pictures import subset

    if args.data != "minivoc" and args.root is None:
        raise UsageError(f"--data {args.data} needs its folder: --root FOLDER")
    try:
        pictures = data.load(args.data, args.split, args.root)
    except (OSError, ValueError) as error:
        # All loaders name an unknown split in these words; everything else is a problem with the data.
        if f"split {args.split!r}" in str(error):
            raise UsageError(str(error)) from error
        raise
    if not len(pictures):
        raise ValueError(f"the split {args.split} of {args.root or args.data} lists no pictures")
    return subset(pictures, args.limit)


def _device(name: str) -> torch.device:
    import torch

    if name == "cuda" and not torch.cuda.is_available():
        raise RuntimeError("--device cuda was asked for, but this machine shows no GPU; use --device cpu")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def _network(args: argparse.Namespace, class_names: Sequence[str] | None = None) -> AttentionModel:
    from dsna_lib import attention

    args.size = args.size or options.SIZE["picture" if getattr(args, "pictures", None) else "data"]
    device = _device(args.device)
    if args.model is None and not CHECKPOINT.is_file():
        raise FileNotFoundError(f"{CHECKPOINT}: the model that ships with the package is missing; pass --model FILE")
    return attention.load(args.model or CHECKPOINT, class_names).to(device)


def _settings(args: argparse.Namespace) -> dict[str, Any]:
    """How to run a model: what `maps.compute` and `annotate_split` have in common."""
    return {name: getattr(args, name) for name in ("size", "batch_size", "precision", "workers")}


def _model_card(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib import runs

    return {"model": runs.file_digest(args.model or CHECKPOINT), "size": args.size, "precision": args.precision}


def _claim(folder: Path, **made_by: Any) -> None:
    """Note what makes a folder's files, or refuse a folder of something else: what is there is skipped, not redone."""
    from dsna_lib.runs import write_json

    _make(folder)
    card = folder / "made_by.json"
    before = json.loads(card.read_text()) if card.is_file() else made_by
    for name, value in made_by.items():
        if before.get(name) != value:
            was = f"{folder} was made with {name} {before.get(name)}, not {value}"
            raise RuntimeError(f"{was}: choose another --out, or delete it")
    write_json(card, made_by)


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OSError(error.errno, f"cannot write into the folder {folder}: {error.strerror}") from error


def _asked_for(args: argparse.Namespace) -> tuple[Pictures, AttentionModel]:
    """The pictures named on the command line, or those of the data set; and the model for them."""
    from dsna_lib.data.pictures import without_masks

    if bool(args.pictures) == bool(args.data):
        raise UsageError("name either pictures or a data set (--data)")
    if args.pictures:
        named = _named(args.pictures)
        model = _network(args)
        return _own_pictures(named, args.labels, model.config.class_names), model
    if args.labels is not None:
        raise UsageError("--labels goes with pictures; a data set brings its own")
    pictures = without_masks(_load(args))
    return pictures, _network(args, pictures.class_names)


def _named(paths: Sequence[Path]) -> list[Path]:
    """The pictures, each once. Two of the same stem would write to the same place."""
    by_stem: dict[str, Path] = {}
    for path in paths:
        twin = by_stem.setdefault(path.stem.casefold(), path)
        if twin.resolve() != path.resolve():
            raise UsageError(f"{twin} and {path} would write to the same place: use two calls with different --out")
    return list(by_stem.values())


def _own_pictures(paths: Sequence[Path], labels: Sequence[str] | None, class_names: tuple[str, ...]) -> Pictures:
    from dsna_lib.data import Pictures, Record, voc

    known = f"the model knows {', '.join(class_names)}"
    if labels is not None and not labels:
        raise UsageError(f"--labels is empty: name at least one class; {known}")
    try:
        indices = voc.class_indices([] if labels in (None, ["auto"]) else labels, class_names, where="--labels")
    except ValueError as error:
        raise UsageError(str(error).partition("; the classes are")[0] + f"; {known}") from error
    return Pictures([Record(path.stem, path, indices) for path in paths], class_names)


def _note(result: dict[str, Any], name: str, error: Exception) -> None:
    """Note that a picture failed, and go on with the next; a full disk ends the command."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        raise error
    result["failed"][name] = _sentence(error)


# --- train ------------------------------------------------------------------------------------------------------------


def _train_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: runs/train/DIGEST)")
    options.data_set(parser, "train", required=True)
    options.architecture(parser)
    options.schedule(parser)


def _train(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib import runs
    from dsna_lib.attention import ModelConfig
    from dsna_lib.training import TrainingConfig

    settings = _backbone(args) | {"head": args.head, "dropout": args.dropout}
    pictures = _load(args)
    config = _schedule(args, TrainingConfig)
    if args.out:
        _claim(args.out, **settings, data=runs.data_digest(pictures))
    _, run = runs.train_once(ModelConfig(pictures.class_names, **settings), pictures, config, args.out)
    return _trained(args, pictures, run)


def _trained(args: argparse.Namespace, pictures: Pictures, run: Run) -> dict[str, Any]:
    path = run.folder / "model.pth"
    _say(args, str(path))
    return {"done": len(pictures), "model": path, "folder": run.folder, **run.read()["metrics"]}


def _backbone(args: argparse.Namespace) -> dict[str, Any]:
    """Fields of ModelConfig."""
    import timm

    if args.backbone not in ("vgg16", "efficientnet_lite0") and not timm.is_model(args.backbone):
        raise UsageError(f"unknown backbone {args.backbone!r}; choose vgg16, efficientnet_lite0 or a timm model")
    weights = None if args.weights == "none" else args.weights
    return {"backbone": args.backbone, "weights": weights, "train_last": args.train_last}


def _schedule(args: argparse.Namespace, config: type[TrainingConfig], **recipe: Any) -> TrainingConfig:
    """A recipe's schedule, else the quick or the full one, with what was given on the command line."""
    given = {name: getattr(args, name) for name in options.SEGMENTATION_SCHEDULE | options.SCHEDULE if name in args}
    make = config if recipe or not args.quick else config.quick
    return make(**recipe | given)


# --- maps -------------------------------------------------------------------------------------------------------------


def _maps_options(parser: argparse.ArgumentParser) -> None:
    options.pictures(parser)
    parser.add_argument(
        "--labels", type=options.words, help="classes in the pictures, such as cat,person (default: all of the model's)"
    )
    parser.add_argument("--all-classes", action="store_true", help="of every class, not only of those present")
    parser.add_argument("--dtype", choices=("float16", "float32"), default="float16", help="number format of the maps")
    parser.add_argument("--out", type=Path, default=Path("maps"), metavar="FOLDER", help="where each ID.npz goes")
    options.data_set(parser, "val")
    options.model(parser)


def _maps(args: argparse.Namespace) -> dict[str, Any]:
    import numpy as np

    from dsna_lib import maps
    from dsna_lib.data.pictures import write_atomically

    pictures, model = _asked_for(args)
    everything = args.all_classes or (args.data is None and args.labels is None)
    todo = list(range(len(pictures)))
    if args.data:  # named pictures are few, and of any folder: they are always done anew
        _claim(args.out, **_model_card(args), dtype=args.dtype, classes="all" if everything else "present")
        todo = [i for i in todo if not (args.out / f"{pictures.records[i].id}.npz").is_file()]
    skipped = len(pictures) - len(todo)
    result = {"done": skipped, "folder": args.out, "written": 0, "skipped": skipped, "failed": {}}
    for found in maps.compute(model, pictures, todo, failed=result["failed"], **_settings(args)):
        record = pictures.records[found.index]
        labels = range(pictures.num_classes) if everything else record.labels
        arrays = _arrays(found, list(labels), pictures.class_names, args.dtype)
        write_atomically(args.out / f"{record.id}.npz", lambda file, arrays=arrays: np.savez_compressed(file, **arrays))
        result["written"] += 1
        result["done"] += 1
    _say(args, _counts(result))
    return result


def _counts(result: dict[str, Any]) -> str:
    counts = f"{result['written']} written, {result['skipped']} were there, {len(result['failed'])} failed"
    return f"{result['folder']}: {counts}"


def _arrays(found: PictureMaps, labels: list[int], class_names: Sequence[str], dtype: str) -> dict[str, np.ndarray]:
    """What an .npz holds: maps ``(K, h, w)`` of the K `classes`, scores ``(C,)``, names ``(C,)`` and the size."""
    import numpy as np

    arrays = {kind: planes[labels].cpu().numpy().astype(dtype) for kind, planes in found.maps.items()}
    names = np.array(class_names, dtype=str)
    size = np.array(found.size)
    return arrays | {"classes": names[labels], "class_names": names, "scores": found.scores.cpu().numpy(), "size": size}


# --- annotate ---------------------------------------------------------------------------------------------------------


def _annotate_options(parser: argparse.ArgumentParser) -> None:
    from dsna_lib import annotate, photos

    options.pictures(parser)
    text = "classes in the pictures, such as cat,person; auto: let the model guess"
    parser.add_argument("--labels", type=options.words, help=text)
    text = "longer side, in pixels, at which heat maps, overlay and CRF of pictures are made at most; 0: full size"
    side = options.number(int, 0)
    parser.add_argument("--max-side", type=side, default=photos.MAX_SIDE, metavar="N", help=text)
    text = "of pictures: a merged map above it is the object, in 0 .. 1; a data set has the paper's 0.2"
    share = options.number(float, 0, 1)
    usual = photos.SHOWN_THRESHOLD
    parser.add_argument("--foreground-threshold", type=share, default=usual, metavar="T", help=text)
    text = "for data sets: of expansive, discriminative, merged"
    kinds = ",".join(options.default(annotate.annotate_split, "kinds"))
    parser.add_argument("--kinds", type=options.words, default=kinds, help=text)
    parser.add_argument("--out", type=Path, default=Path("annotations"), metavar="FOLDER", help="where to")
    options.data_set(parser, "train")
    options.model(parser)
    options.dense_crf(parser, "sec")


def _annotate(args: argparse.Namespace) -> dict[str, Any]:
    if args.pictures and not args.data and args.labels is None:
        raise UsageError(
            "labels are needed: name the classes (--labels cat,person) or have them guessed (--labels auto)"
        )
    pictures, model = _asked_for(args)
    if args.pictures:
        return _annotate_pictures(args, pictures, model)
    result = _annotate_split(args, pictures, model, args.out)
    _say(args, _counts(result))
    return result


def _annotate_pictures(args: argparse.Namespace, pictures: Pictures, model: AttentionModel) -> dict[str, Any]:
    """Each picture into its own folder; whatever happens to one, the others are done."""
    from dsna_lib import maps, photos

    guess, refine = args.labels == ["auto"], args.crf != "none"
    result: dict[str, Any] = {"done": 0, "labels_predicted": guess, "pictures": [], "failed": {}}
    if guess:
        _say(args, "The labels are predicted by the model, not given.")
    _make(args.out)
    for found in maps.compute(model, pictures, failed=result["failed"], **_settings(args)):
        record = pictures.records[found.index]
        labels = photos.predicted_labels(found) if guess else record.labels
        about = (labels, pictures.class_names, args.out / record.id)
        try:
            shown = photos.write_maps(record.image, found, *about, args.max_side, args.foreground_threshold)
            result["pictures"].append(shown)
            if refine:
                shown |= photos.write_refined(record.image, *about, args.tau, args.crf, args.max_side)
        except ImportError as error:  # no pydensecrf: what needs none is still worth having
            refine, result["error"], result["code"] = False, str(error), 3
        except (OSError, ValueError, MemoryError) as error:
            _note(result, record.id, error)
            continue
        result["done"] += 1
        _say(args, photos.summary(shown))
    return result


def _annotate_split(args: argparse.Namespace, pictures: Pictures, model: AttentionModel, out: Path) -> dict[str, Any]:
    """Annotate a split, and refine its merged (else its first) annotations; each process takes its share."""
    from accelerate import PartialState
    from accelerate.utils import gather_object

    from dsna_lib import annotate, crf

    kinds = _kinds(args, model)
    _claim(out, **_model_card(args))
    state = PartialState(cpu=_device(args.device).type == "cpu")
    share = {"process": state.process_index, "processes": state.num_processes}
    report = annotate.annotate_split(model.to(state.device), pictures, out, kinds, **share, **_settings(args))
    failed, folders = report.failed, list(kinds)
    if args.crf != "none":
        source = "merged" if "merged" in kinds else kinds[0]
        folders.append(f"{source}_crf")
        _claim(out / folders[-1], crf=args.crf, tau=args.tau)
        mine = pictures.select(report.written + report.skipped)
        failed |= crf.refine_split(mine, out / source, out / folders[-1], args.tau, args.crf, args.processes).failed
    counts = {"written": len(report.written), "skipped": len(report.skipped), "failed": failed}
    everyone = gather_object([counts])
    total = {name: sum(one[name] for one in everyone) for name in ("written", "skipped")}
    failed = {name: reason for one in everyone for name, reason in one["failed"].items()}
    return {"done": len(pictures) - len(failed), "folder": out, "kinds": folders, **total, "failed": failed}


def _kinds(args: argparse.Namespace, model: AttentionModel) -> list[str]:
    """The kinds of map asked for, or all that this model has."""
    from dsna_lib import maps

    there = ["discriminative"] if model.config.head == "single_stream" else list(maps.KINDS)
    kinds = there if args.kinds is None else args.kinds
    unknown = [kind for kind in kinds if kind not in there]
    if unknown or not kinds:
        raise UsageError(f"--kinds {','.join(kinds)}: this model has {', '.join(there)}; choose of these")
    return kinds


# --- train-segmentation and segment -----------------------------------------------------------------------------------


def _train_segmentation_options(parser: argparse.ArgumentParser) -> None:
    from dsna_lib.segmentation import SegmentationTraining

    text = "what it learns from: an ID.png for each picture, such as those of `dsna annotate`"
    parser.add_argument("--annotations", type=Path, metavar="FOLDER", help=text)
    text = "learn from the data set's own masks instead: full supervision, an upper bound"
    parser.add_argument("--truth", action="store_true", help=text)
    text = "leave out pictures whose annotation is missing or void everywhere, instead of refusing"
    parser.add_argument("--skip-missing", action="store_true", help=text)
    text = "SEC's losses, some of seed,expand,constrain, on the annotations as cues, instead of the cross-entropy"
    parser.add_argument("--sec", type=options.words, metavar="LOSSES", help=text)
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="where to (default: runs/segmentation/DIGEST)")
    options.data_set(parser, "train", required=True)
    options.segmentation_network(parser)
    options.schedule(parser, config=SegmentationTraining, known=options.SEGMENTATION_SCHEDULE)


def _train_segmentation(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib import runs, segmentation
    from dsna_lib.rivals.sec import SECLoss
    from dsna_lib.segmentation import SegmentationConfig, SegmentationTraining

    if bool(args.annotations) == args.truth:
        raise UsageError("name either a folder of annotations (--annotations) or the true masks (--truth)")
    try:
        loss = SECLoss(tuple(args.sec)) if args.sec is not None else None
    except ValueError as error:
        raise UsageError(f"--sec: {error}") from error
    pictures = _load(args)
    if args.annotations:
        listed, pictures = len(pictures), segmentation.annotated(pictures, args.annotations, args.skip_missing)
        if len(pictures) < listed:
            _say(args, f"{listed - len(pictures)} of {listed} pictures have no annotation and are left out.")
    of_network = ("channels", "dilation", "dropout", "pretrained_head")
    settings = _backbone(args) | {name: getattr(args, name) for name in of_network}
    config = replace(_schedule(args, SegmentationTraining), whole=loss is not None)
    _, run = runs.train_once(SegmentationConfig(pictures.class_names, **settings), pictures, config, args.out, loss)
    return _trained(args, pictures, run)


def _segment_options(parser: argparse.ArgumentParser) -> None:
    from dsna_lib import photos

    options.pictures(parser)
    text = "for data sets: some of single (the middle one of --scales), multi (all of them), crf (all, then the CRF)"
    parser.add_argument("--kinds", type=options.words, metavar="KINDS", help=text + " (default: crf, or multi without)")
    text = "longer side, in pixels, at which the network and the CRF see a picture at most; 0: its own size"
    side = options.number(int, 0)
    parser.add_argument("--max-side", type=side, default=photos.SEGMENTED_SIDE, metavar="N", help=text)
    text = "for data sets: also pack the masks as VOC's evaluation server takes them, into this .tar.gz"
    parser.add_argument("--archive", type=Path, metavar="FILE", help=text)
    parser.add_argument("--out", type=Path, default=Path("segmentation"), metavar="FOLDER", help="where to")
    options.data_set(parser, "val")
    options.inference(parser)


def _segment(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib import photos, runs, segmentation

    if args.scales is None:
        args.scales = segmentation.SCALES if args.model else photos.SHIPPED_SCALES
    if bool(args.pictures) == bool(args.data):
        raise UsageError("name either pictures or a data set (--data)")
    if args.pictures and (args.kinds or args.archive):
        raise UsageError("--kinds and --archive go with a data set (--data)")
    if args.pictures:
        return _segment_pictures(args, _named(args.pictures), _segmentation_network(args))
    kinds = tuple(args.kinds or (["multi"] if args.crf == "none" else ["crf"]))
    if strange := [kind for kind in kinds if kind not in segmentation.KINDS or (kind == "crf" and args.crf == "none")]:
        raise UsageError(f"--kinds {strange[0]}: choose from single, multi and, unless --no-crf is given, crf")
    pictures = _load(args)
    model = _segmentation_network(args, pictures.class_names)
    look = {name: getattr(args, name) for name in ("scales", "flip", "precision")}
    card = {"model": runs.file_digest(args.model or SEGMENTATION_CHECKPOINT), **look, "scales": list(args.scales)}
    _claim(args.out, **card)
    if "crf" in kinds:
        _claim(args.out / "crf", crf=args.crf)
    share = {name: getattr(args, name) for name in ("batch_size", "workers", "processes")}
    params = "segmentation" if args.crf == "none" else args.crf
    report = segmentation.segment_split(model, pictures, args.out, kinds, params=params, **look, **share)
    counts = {"written": len(report.written), "skipped": len(report.skipped), "failed": report.failed}
    result = {"done": len(pictures) - len(report.failed), "folder": args.out, "kinds": list(kinds), **counts}
    _say(args, _counts(result))
    if args.archive:
        result["archive"] = segmentation.server_archive(args.out / kinds[-1], pictures, args.archive)
        _say(args, str(result["archive"]))
    return result


def _segmentation_network(args: argparse.Namespace, class_names: Sequence[str] | None = None) -> SegmentationModel:
    from dsna_lib import segmentation

    path = args.model or SEGMENTATION_CHECKPOINT
    if args.model is None and not path.is_file():
        raise FileNotFoundError(f"{path}: the model that ships with the package is missing; pass --model FILE")
    return segmentation.load(path, class_names).to(_device(args.device))


def _segment_pictures(args: argparse.Namespace, paths: Sequence[Path], model: SegmentationModel) -> dict[str, Any]:
    """Each picture into its own folder; whatever happens to one, the others are done."""
    from dsna_lib import photos

    result: dict[str, Any] = {"done": 0, "pictures": [], "failed": {}}
    params = None if args.crf == "none" else args.crf
    look = {name: getattr(args, name) for name in ("scales", "flip", "max_side", "precision")}
    _make(args.out)
    for path in paths:
        try:
            shown = photos.write_segmentation(path, model, args.out / path.stem, params=params, **look)
        except (OSError, ValueError, RuntimeError, MemoryError) as error:
            _note(result, path.stem, error)
            continue
        result["done"] += 1
        result["pictures"].append(shown)
        _say(args, photos.summary(shown))
    return result


# --- evaluate ---------------------------------------------------------------------------------------------------------


def _evaluate_options(parser: argparse.ArgumentParser) -> None:
    from dsna_lib import annotate, metrics

    text = "annotations: an ID.png for every picture of the split"
    parser.add_argument("annotations", nargs="?", type=Path, metavar="FOLDER", help=text)
    void = options.default(annotate.evaluate, "void")
    parser.add_argument("--void", choices=metrics.VOID_POLICIES, default=void, help="what a predicted void counts as")
    parser.add_argument("--per-class", action="store_true", help="print every class, too")
    parser.add_argument("--kinds", type=options.words, help="with --model: of which maps (default: all it has)")
    text = "with --model: keep its annotations there (default: a temporary folder)"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)
    text = "with --model: write the scores and their provenance to results/NAME.json"
    parser.add_argument("--record", metavar="NAME", help=text)
    parser.add_argument(
        "--note", default="", help="with --record: limits of data or recipe, to be kept with the scores"
    )
    options.data_set(parser, "val", required=True)
    text = "score the annotations of this model, written by `dsna train`, by the protocol of Table I"
    options.model(parser, text)
    options.dense_crf(parser, "none")


def _evaluate(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib import annotate

    if bool(args.annotations) == bool(args.model):
        raise UsageError("name either a FOLDER of annotations or a model (--model)")
    if args.record and not args.model:
        raise UsageError("--record goes with --model: the provenance of a folder of annotations is not known")
    pictures = _load(args)
    if args.model:
        result = _evaluate_model(args, pictures)
    else:
        matrices = {args.annotations.name: annotate.evaluate(args.annotations, pictures, args.void)}
        result = {"done": len(pictures), "rows": matrices}
    result["rows"] = {name: _row(matrix, pictures.class_names) for name, matrix in result["rows"].items()}
    _say(args, _table(args, result["rows"]))
    if args.record:
        _record(args, pictures, result)
    return {"split": args.split, "void": args.void, **result}


def _record(args: argparse.Namespace, pictures: Pictures, result: dict[str, Any]) -> None:
    """Keep the scores with everything that explains them."""
    from dsna_lib import crf, runs

    if not _speaks():
        return
    refined = "none" if args.crf == "none" else {"preset": args.crf, "tau": args.tau, **vars(crf.preset(args.crf))}
    protocol = f"{args.size} x {args.size} input, one scale, {args.precision}, predicted void counts as {args.void}"
    provenance = {
        "command": "dsna evaluate",
        "split": args.split,
        "pictures": result["done"],
        "data": runs.data_digest(pictures),
        "labels": result["labels"],
        "protocol": protocol,
        "crf": refined,
        "note": args.note,
        "trained": runs.model_provenance(args.model),
    }
    path = runs.write_result(args.record, {"rows": _plain(result["rows"])}, provenance)
    _say(args, f"written to {path}")


def _evaluate_model(args: argparse.Namespace, pictures: Pictures) -> dict[str, Any]:
    """The protocol of Table I: annotate with the true image labels, then score each kind of map."""
    from dsna_lib import annotate
    from dsna_lib.data.pictures import without_masks

    model = _network(args, pictures.class_names)
    with _place(args.out) as out:
        made = _annotate_split(args, without_masks(pictures), model, out)
        left = pictures.select([record.id for record in pictures.records if record.id not in made["failed"]])
        kinds = made["kinds"] if len(left) else []
        rows = {kind: annotate.evaluate(out / kind, left, args.void) for kind in kinds}
    _say(args, f"{len(left)} pictures of {args.split}, annotated with their true image labels.")
    return {"done": len(left), "labels": "the true image labels", "failed": made["failed"], "rows": rows}


@contextlib.contextmanager
def _place(folder: Path | None) -> Iterator[Path]:
    """The folder, or a temporary one."""
    if folder is not None:
        yield folder
    elif int(os.environ.get("WORLD_SIZE", "1")) > 1:
        raise UsageError("several processes need a folder that they share: --out FOLDER")
    else:
        with tempfile.TemporaryDirectory(prefix="dsna-") as temporary:
            yield Path(temporary)


def _row(matrix: ConfusionMatrix, class_names: Sequence[str]) -> dict[str, Any]:
    """The means and every class's values, in percent."""
    columns = zip(("background", *class_names), matrix.precision, matrix.recall, matrix.iou, strict=True)
    names = ("precision", "recall", "iou")
    classes = {c: {n: round(100 * float(v), 2) for n, v in zip(names, values, strict=True)} for c, *values in columns}
    return matrix.summary() | {"per_class": classes}


def _table(args: argparse.Namespace, rows: dict[str, Any]) -> str:
    lines = [
        f"Percent; means over classes, background included; predicted void counts as {args.void}.",
        f"{'':<20}{'precision':>10}{'recall':>10}{'IoU':>10}",
    ]
    for name, row in rows.items():
        classes = {f"  {c}": values for c, values in row["per_class"].items()} if args.per_class else {}
        for label, values in ({name: row} | classes).items():
            lines.append(f"{label:<20}" + "".join(f"{values[n]:10.1f}" for n in ("precision", "recall", "iou")))
    return "\n".join(lines)


# --- table ------------------------------------------------------------------------------------------------------------


def _tables_options(parser: argparse.ArgumentParser) -> None:
    from dsna_lib import pipelines, tables

    names = "; ".join(f"{table.name}: {table.title}" for table in tables.TABLES.values())
    names += "; " + "; ".join(f"{name}: {title}" for name, title in pipelines.TITLES.items())
    text = "one or several, which then train what they share once (IV, V and VI train nothing: they show what III "
    text += f"measured beside what was published). {names}"
    parser.add_argument("names", nargs="+", metavar="TABLE", help=text)
    text = "some rows of one table only, titles separated by semicolons, such as '0;0.5' (default: all)"
    parser.add_argument("--rows", type=lambda rows: [row.strip() for row in rows.split(";")], metavar="ROWS", help=text)
    text = "train every setting with the seeds 0 .. N - 1"
    parser.add_argument("--seeds", type=options.number(int, 1), default=3, metavar="N", help=text)
    text = "settings trained at a time; on a CPU each gets its share of the cores, with several GPUs one each"
    parser.add_argument("--jobs", type=options.number(int, 1), default=1, metavar="N", help=text)
    parser.add_argument("--format", choices=tables.FORMATS, default="markdown", help="of what is printed")
    text = "where the JSON goes, and is read from for IV, V and VI"
    parser.add_argument("--out", type=Path, default=Path("results"), metavar="FOLDER", help=text)
    parser.add_argument("--note", default="", help="limits of data or recipe, to be kept with the numbers")
    options.data_set(parser, "train")
    parser.add_argument("--val", default="val", metavar="SPLIT", help="split to measure on; it needs masks")
    options.backbone(parser, "all; for minivoc its recipe's")
    options.schedule(parser, "the paper's; for minivoc the book's quick recipe", without=["seed"])
    parser.add_argument(
        "--size", type=options.number(int, 16), default=224, metavar="N", help="input side when measuring"
    )
    options.segmentation_of_tables(parser)


def _tables(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib import pipelines, tables

    names = list(dict.fromkeys(args.names))
    printed = [name for name in names if name in pipelines.PUBLISHED]
    trained = [name for name in names if name not in printed]
    if args.rows and len(names) > 1:
        raise UsageError("--rows takes rows of one table: name one table")
    if trained and not args.data:
        raise UsageError(f"table {trained[0]} is measured: name a data set (--data)")
    result: dict[str, Any] = {"done": len(names), "files": {}, "tables": {}}
    try:
        mined = [tables.find(name) for name in trained if name != "III"]
        mined = [mined[0].select(args.rows)] if args.rows and mined else mined
        methods = pipelines.select(args.rows) if "III" in trained else []
    except tables.TableError as error:
        raise UsageError(str(error)) from error
    say, data = (lambda text: _say(args, text)), args.data
    if trained:
        recipe, about = _recipe(args), {"split": args.split, "val": args.val}
    if mined:
        for found in tables.run_all(mined, recipe, args.seeds, args.jobs, say):
            _keep(args, result, data, about, *found)
    if methods:
        found = pipelines.run(methods, _pipeline(args, recipe), args.seeds, args.jobs, say)
        _keep(args, result, data, about, *found)
    for name in printed:
        _say(args, f"\n{pipelines.TITLES[name]}\n\n{pipelines.render_published(name, args.out)}")
    return result


def _keep(
    args: argparse.Namespace,
    result: dict[str, Any],
    data: str,
    about: dict[str, Any],
    values: dict[str, Any],
    provenance: dict[str, Any],
) -> None:
    """Write a table that was measured, and print it."""
    from dsna_lib import runs, tables

    name = values["table"]
    network = (name == "III" and args.segment_backbone) or args.backbone
    file = f"table_{name}_{data}" + (f"_{network}" if data != "minivoc" else "")
    provenance = {"command": "dsna table", "note": args.note} | about | provenance
    result["files"][name] = runs.write_result(file, _plain(values), provenance, args.out)
    result["tables"][name] = values
    said = f"{values['title']}\n\n{tables.render(values, args.format)}\n{tables.render_claims(values)}"
    _say(args, f"\n{said}\nwritten to {result['files'][name]}")


def _pipeline(args: argparse.Namespace, mining: tables.Recipe) -> pipelines.Recipe:
    """How Table III's segmentation networks are trained; the embedded data brings a recipe of its own."""
    from dsna_lib import pipelines, segmentation
    from dsna_lib.data import load
    from dsna_lib.data.pictures import subset
    from dsna_lib.segmentation import SegmentationConfig, SegmentationTraining

    drawn = args.data == "minivoc"
    given = {
        name.removeprefix("segment_"): value
        for name, value in vars(args).items()
        if name.startswith("segment_") and value is not None
    }
    split = given.pop("split", None)
    train = mining.train if split is None else subset(load(args.data, split, args.root), args.limit)
    if drawn:
        network, schedule, scales = pipelines.DRAWN_NETWORK, pipelines.DRAWN_TRAINING, pipelines.DRAWN_SCALES
    else:
        network = {"backbone": args.backbone}
        schedule = {"precision": mining.training.precision, "workers": mining.training.workers}
        scales = segmentation.SCALES
    # Not in place: the book's own recipe stays as it is.
    of_network = ("backbone", "train_last", "channels", "dilation", "pretrained_head")
    network = network | {name: given.pop(name) for name in of_network if name in given}
    scales = given.pop("scales", scales)
    training = SegmentationTraining(**schedule | given | {"device": mining.training.device})
    return pipelines.Recipe(mining, train, SegmentationConfig(train.class_names, **network), training, scales=scales)


def _recipe(args: argparse.Namespace) -> tables.Recipe:
    """What to train and measure on, and how; the embedded data brings a recipe of its own."""
    from dsna_lib import tables
    from dsna_lib.attention import ModelConfig
    from dsna_lib.training import TrainingConfig

    model = _backbone(args)
    train = _load(args)
    args.split = args.val
    val = _load(args)
    if args.data == "minivoc":
        if args.train_last is None:
            model |= tables.DRAWN_MODEL
        config = _schedule(args, TrainingConfig, **tables.DRAWN_TRAINING)
    else:
        config = _schedule(args, TrainingConfig)
    precision = "bf16" if config.precision == "bf16" else "no"
    return tables.Recipe(train, val, ModelConfig(train.class_names, **model), config, args.size, precision)


# --- figure -----------------------------------------------------------------------------------------------------------


def _figures_options(parser: argparse.ArgumentParser) -> None:
    from dsna_lib import chapters

    text = "figures and tables of the paper, such as 5, II, figure-5 or table-II; all for all of them"
    parser.add_argument("names", nargs="*", metavar="NAME", help=text)
    parser.add_argument("--list", action="store_true", help="say what there is, and which chapter makes it")
    parser.add_argument("--profile", choices=chapters.PROFILES, help="the same as -p profile PROFILE (default: cpu)")
    text = "replace a parameter of the chapter, such as -p seed 1; an unknown one is refused, with those that it has"
    parser.add_argument("-p", "--parameter", nargs=2, action="append", metavar=("NAME", "VALUE"), help=text)
    text = "each figure and table gets a folder of its name in it (default: runs/figures)"
    parser.add_argument("--out", type=Path, metavar="FOLDER", help=text)


def _figures(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib import chapters

    if args.list:
        for each in chapters.EXHIBITS:
            _say(args, f"{each.name:<20} {each.chapter:<18} {each.title}")
        return {"done": 0, "figures": {each.name: vars(each) for each in chapters.EXHIBITS}}
    if not args.names:
        raise UsageError("name a figure or table, such as 5 or II; --list says what there is")
    from dsna_lib import runs

    given = dict(args.parameter or []) | ({"profile": args.profile} if args.profile else {})
    out = args.out or runs.root() / "figures"
    result: dict[str, Any] = {"done": 0, "folder": out, "figures": {}, "failed": {}}
    try:
        every = args.names == ["all"]
        exhibits = dict.fromkeys(chapters.EXHIBITS if every else map(chapters.find, args.names))
        by_chapter = {each.chapter: [one for one in exhibits if one.chapter == each.chapter] for each in exhibits}
        for chapter in by_chapter:  # before the first of them runs
            chapters.parameters(chapters.notebook_of(chapter), given)
    except chapters.ChapterError as error:
        raise UsageError(str(error)) from error
    for chapter, wanted in by_chapter.items():
        _figures_of(args, result, chapter, given, wanted)
    return result


def _figures_of(
    args: argparse.Namespace, result: dict[str, Any], chapter: str, given: dict[str, Any], wanted: list[Exhibit]
) -> None:
    """Run a chapter and write what is wanted of it; whatever fails is noted, and does not keep others from running."""
    from dsna_lib import chapters

    try:
        run = chapters.execute(chapter, given, lambda text: _say(args, text))
    except (OSError, RuntimeError) as error:
        return _note(result, chapter, error)
    for exhibit in wanted:
        folder = result["folder"] / exhibit.name
        try:
            result["figures"][exhibit.name] = chapters.extract(exhibit, run, folder)
        except (OSError, RuntimeError) as error:
            _note(result, exhibit.name, error)
            continue
        result["done"] += 1
        _say(args, f"{folder}: {', '.join(file.name for file in result['figures'][exhibit.name])}")


# --- data -------------------------------------------------------------------------------------------------------------


def _data_commands(parser: argparse.ArgumentParser) -> None:
    commands = parser.add_subparsers(dest="action", required=True, metavar="ACTION")
    for name, run, fill, text in (
        ("make", _data_make, _data_make_options, "draw the embedded data set"),
        ("check", _data_check, _data_check_options, "count what a VOC folder holds, and open it"),
        ("download", _data_download, _data_download_options, "fetch PASCAL VOC 2012 and SBD"),
    ):
        options.command(commands, name, run, fill, text)


MINIVOC = (
    ("seed", 0, "seed of the drawings"),
    ("train", 1, "number of training pictures"),
    ("val", 0, "number of validation pictures"),
    ("size", 32, "longer side of a picture in pixels"),
    ("workers", 1, "processes that draw"),
)


def _data_make_options(parser: argparse.ArgumentParser) -> None:
    from dsna_lib.data import minivoc

    parser.add_argument("--out", type=Path, default=Path("minivoc"), metavar="FOLDER", help="where to")
    for name, low, text in MINIVOC:
        usual = options.default(minivoc.make, name)
        parser.add_argument(f"--{name}", type=options.number(int, low), default=usual, metavar="N", help=text)


def _data_make(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib.data import minivoc

    chosen = {name: getattr(args, name) for name, *_ in MINIVOC}
    folder = minivoc.make(args.out, **chosen)
    _say(args, f"{folder}: {args.train} training and {args.val} validation pictures")
    return {"done": args.train + args.val, "folder": folder, **chosen}


def _data_check_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="ROOT", help="VOCdevkit, VOC2012, or a folder laid out like it")
    parser.add_argument("--decode", action="store_true", help="open every picture and mask, and name the bad ones")


def _data_check(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib.data import voc

    splits = voc.check(args.root)
    if not splits:
        raise FileNotFoundError(f"{args.root}: no splits; ImageSets/Segmentation/*.txt should list picture ids")
    failed = {}
    for split, counts in splits.items():
        _say(args, f"{split:<12}" + ", ".join(f"{count} {what}" for what, count in counts.items()))
        for what in ("pictures",) if split == "test" else ("pictures", "labels"):
            lacking = counts["listed"] - counts[what]
            if lacking:
                failed[f"{split}/{what}"] = f"{lacking} of {counts['listed']} {what} are missing; --decode names them"
    if args.decode:
        failed |= _bad_files(args, list(splits))
    return {"done": sum(counts["pictures"] for counts in splits.values()), "splits": splits, "failed": failed}


def _bad_files(args: argparse.Namespace, splits: Sequence[str]) -> dict[str, str]:
    """Open every picture and mask of the splits; what cannot be used, and why."""
    from tqdm import tqdm

    from dsna_lib.data import PictureError, read_image, read_mask, voc

    records, bad = {}, {}
    for split in splits:
        try:
            records |= {record.id: record for record in voc.load(args.root, split).records}
        except ValueError as error:  # labels that are missing, or of an unknown class
            bad[split] = str(error)
    for record in tqdm(records.values(), leave=False, disable=None, unit="picture"):
        try:
            size = read_image(record.image).shape[:2]
            if record.mask is not None:
                read_mask(record.mask, size)
        except PictureError as error:
            bad[record.id] = str(error)
    _say(args, f"opened {len(records)} pictures and their masks: {len(bad)} problems")
    return bad


def _data_download_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", type=Path, metavar="ROOT", help="VOCdevkit/VOC2012 goes there (2 GB, and SBD 1.4 GB)")
    parser.add_argument("--no-sbd", action="store_true", help="leave out SBD's masks, and with them train_aug")


def _data_download(args: argparse.Namespace) -> dict[str, Any]:
    from dsna_lib.data import download

    folder = download.download_voc(args.root, sbd=not args.no_sbd)
    _say(args, str(folder))
    return {"done": 1, "folder": folder}


if __name__ == "__main__":
    sys.exit(main())
