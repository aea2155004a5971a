"""What models make of pictures, named one by one or of a data set: maps, annotations, masks, and their scores."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict, replace
from functools import lru_cache, partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from dsna_lib import attention, checkpoints
from dsna_lib.annotate import annotate_split
from dsna_lib.annotate import evaluate as score
from dsna_lib.attention import AttentionModel
from dsna_lib.book import photos
from dsna_lib.cli.main import UsageError, noted
from dsna_lib.cli.options import given
from dsna_lib.config.annotation import AnnotationConfig, preset
from dsna_lib.config.photos import SHIPPED_SCALES, SHOWN
from dsna_lib.config.recipe import DataConfig, MapConfig
from dsna_lib.config.segmentation import InferenceConfig
from dsna_lib.crf import choose_backend, refine_split, require
from dsna_lib.data import Pictures, Record, sources, voc
from dsna_lib.data.pictures import DataError, without_masks
from dsna_lib.engine import outputs, runs
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.errors import first_few
from dsna_lib.engine.files import refuse_unwritable, write_atomically
from dsna_lib.engine.pools import Report, Workers, run_shares
from dsna_lib.engine.provenance import result_path, write_result
from dsna_lib.maps import MAP_KINDS, iterate_maps
from dsna_lib.metrics import ConfusionMatrix
from dsna_lib.segmentation import archive, networks
from dsna_lib.segmentation.inference import MASK_KINDS, segment_shares

MEASURES = ("precision", "recall", "iou")


# --- what is given ----------------------------------------------------------------------------------------------------


class ModelFile(NamedTuple):
    """An attention model as a share of work names it; without names of classes, whatever classes it has."""

    path: Path
    device: str
    class_names: tuple[str, ...] | None = None


@lru_cache(maxsize=1)
def _attention_model(file: ModelFile) -> AttentionModel:
    """The model, which each process reads once."""
    device = choose_device(file.device)
    return attention.load(file.path, file.class_names).to(device)


def _model_path(args: argparse.Namespace, shipped: Path) -> Path:
    """The model file that was named, or the one that ships."""
    if args.model is None and not shipped.is_file():
        raise FileNotFoundError(f"{shipped}: the model that ships with the package is missing; pass --model FILE")
    return (args.model or shipped).absolute()


def _named(args: argparse.Namespace) -> list[Record]:
    """The pictures, each once; none where a data set was named. Two of the same stem would write to the same place."""
    if bool(args.pictures) == bool(args.data):
        raise UsageError("name either pictures or a data set (--data)")
    by_stem: dict[str, Record] = {}
    for path in args.pictures:
        twin = by_stem.setdefault(path.stem.casefold(), Record(path.stem, path, ())).image
        if twin.resolve() != path.resolve():
            raise UsageError(f"{twin} and {path} would write to the same place: use two calls with different --out")
    return list(by_stem.values())


def _split(args: argparse.Namespace) -> Pictures:
    return sources.load_split(DataConfig(source=args.data, limit=args.limit), args.split, args.root)


def _asked_for(args: argparse.Namespace) -> tuple[Pictures, ModelFile]:
    """The pictures named on the command line, or those of the data set; and the model for them."""
    named, file = _named(args), ModelFile(_model_path(args, checkpoints.ATTENTION), args.device)
    if named:
        config = _attention_model(file).config
        assert config is not None, "it comes from a file"
        known = f"the model knows {', '.join(config.class_names)}"
        if args.labels == []:
            raise UsageError(f"--labels is empty: name at least one class; {known}")
        names = [] if args.labels in (None, ["auto"]) else args.labels
        try:
            labels = voc.class_indices(names, config.class_names, where="--labels")
        except ValueError as error:
            raise UsageError(str(error).partition("; the classes are")[0] + f"; {known}") from error
        return Pictures([replace(record, labels=labels) for record in named], config.class_names), file
    if args.labels is not None:
        raise UsageError("--labels goes with pictures; a data set brings its own")
    pictures = without_masks(_split(args))
    file = file._replace(class_names=pictures.class_names)
    _attention_model(file)  # one of other classes is refused before anything is written
    return pictures, file


def _map_config(args: argparse.Namespace) -> MapConfig:
    """How a model is shown pictures: a data set as in the paper, pictures named one by one as is usual for them."""
    usual = SHOWN if getattr(args, "pictures", None) else MapConfig()
    return replace(usual, **given(args, MapConfig))


def _map_options(args: argparse.Namespace) -> dict[str, Any]:
    """The same as arguments of :func:`dsna_lib.maps.iterate_maps`."""
    return asdict(_map_config(args)) | {"workers": args.workers}


def _require_crf(args: argparse.Namespace, config: AnnotationConfig | InferenceConfig) -> None:
    """Refuse a CRF that cannot be computed before anything is done."""
    if config.crf != "none":
        require(args.crf_backend)


# --- what comes of it -------------------------------------------------------------------------------------------------


def _claim(folder: Path, stage: str, file: ModelFile, how: dict[str, Any], **more: Any) -> runs.Run:
    """The run of a folder whose files a model makes."""
    shown = {name: how[name] for name in ("size", "scales", "flip", "precision")}
    return runs.claim_folder(folder, stage, model=runs.file_digest(file.path), **shown, **more)


def _finish(report: Report, *claimed: runs.Run) -> None:
    """Mark folders as finished, unless pictures failed."""
    for run in () if report.failed else claimed:
        run.finish(pictures=len(report.written) + len(report.skipped))


def _wrote(folder: Path, report: Report, **more: Any) -> dict[str, Any]:
    """Tell what became of a data set's pictures, and return it as the command's result."""
    written, skipped, failed = len(report.written), len(report.skipped), report.failed
    said = f"{folder}: {written} written, {skipped} were there, {len(failed)} failed"
    if renewed := [name for name in dict.fromkeys(report.renewed) if name not in failed]:
        said += (
            f"; {len(renewed)} were made again, for they were not of these pictures and labels: {first_few(renewed)}"
        )
        more["renewed"] = len(renewed)
    print(said)
    done = len({*report.written, *report.skipped} - set(failed))
    return {"done": done, "folder": folder, **more, "written": written, "skipped": skipped, "failed": failed}


# --- maps and annotations ---------------------------------------------------------------------------------------------


def maps(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna maps``."""
    pictures, file = _asked_for(args)
    every = args.all_classes or (args.data is None and args.labels is None)
    with outputs.filling(args.out):
        report = _write_maps(args, pictures, file, every)
    return _wrote(args.out, report)


def _write_maps(args: argparse.Namespace, pictures: Pictures, file: ModelFile, every: bool) -> Report:
    """Write the maps that are not there, of the classes present or of `every` class."""
    how, claimed, there, renewed = _map_options(args), [], set(), []
    if args.data:  # named pictures are few, and of any folder: they are always done anew
        classes = "all" if every else "present"
        claimed = [_claim(args.out, "maps", file, how, dtype=args.dtype, classes=classes)]
        made_of = outputs.made_of(pictures, claimed[0].identity, labels=not every)
        renewed = outputs.discard_stale(args.out, ".npz", made_of)
        there = {record.id for record in pictures.records if outputs.is_whole(args.out / f"{record.id}.npz")}
    records = [record for record in pictures.records if record.id not in there]
    if every:
        records = [replace(record, labels=tuple(range(pictures.num_classes))) for record in records]
    work = partial(_write, file, pictures.with_records(records), args.out, how, args.dtype)
    report = run_shares(len(records), work, Workers(args.jobs, args.scheduler), how["batch_size"])
    report.skipped += there
    report.renewed += renewed
    _finish(report, *claimed)
    return report


def _write(file: ModelFile, pictures: Pictures, out: Path, how: dict[str, Any], dtype: str, places: range) -> Report:
    """A share: ``ID.npz`` with maps ``(K, h, w)`` of the K `classes`, scores ``(C,)``, names ``(C,)`` and the size."""
    report, names = Report(), np.array(pictures.class_names, dtype=str)
    for picture in iterate_maps(_attention_model(file), pictures, list(places), failed=report.failed, **how):
        record = pictures.records[picture.index]
        labels = list(record.labels)
        arrays: dict[str, Any] = {
            kind: planes[labels].cpu().numpy().astype(dtype) for kind, planes in picture.maps.items()
        }
        arrays |= {"classes": names[labels], "class_names": names, "scores": picture.scores.cpu().numpy()}
        arrays["size"] = np.array(picture.size)
        write_atomically(out / f"{record.id}.npz", partial(np.savez_compressed, **arrays))
        report.written.append(record.id)
    return report


def annotate(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna annotate``."""
    if args.pictures and not args.data and args.labels is None:
        text = "labels are needed: name the classes (--labels cat,person) or have them guessed (--labels auto)"
        raise UsageError(text)
    pictures, file = _asked_for(args)
    config = AnnotationConfig(**given(args, AnnotationConfig))
    _require_crf(args, config)
    if args.pictures:
        with outputs.filling(args.out):
            return _annotate_pictures(args, pictures, file, config)
    report, kinds = _annotate_data(args, pictures, file, args.out, config)
    return _wrote(args.out, report, kinds=kinds)


def _annotate_pictures(
    args: argparse.Namespace, pictures: Pictures, file: ModelFile, config: AnnotationConfig
) -> dict[str, Any]:
    """Each picture into its own folder; whatever happens to one, the others are done."""
    guess, device = args.labels == ["auto"], choose_device(args.device)
    result: dict[str, Any] = {"done": 0, "labels_predicted": guess, "pictures": [], "failed": {}}
    if guess:
        print("The labels are predicted by the model, not given.")
    for picture in iterate_maps(_attention_model(file), pictures, failed=result["failed"], **_map_options(args)):
        record = pictures.records[picture.index]
        record = replace(record, labels=photos.predicted_labels(picture)) if guess else record
        about = (pictures.class_names, args.out / record.id, config, args.max_side)
        with noted(args, result, record.id):
            shown = photos.write_maps(record, picture, *about)
            result["pictures"].append(shown)
            if config.crf != "none":
                shown |= photos.write_refined(record, *about, args.crf_backend, device)
            print(photos.summary(shown))
    return result


def _annotate_data(
    args: argparse.Namespace, pictures: Pictures, file: ModelFile, out: Path, config: AnnotationConfig
) -> tuple[Report, list[str]]:
    """Annotate a split, and refine some kinds of its annotations; also the names of the folders in `out`."""
    if not any(record.labels for record in pictures.records):  # such as VOC's test split, whose labels are not public
        raise DataError(f"no picture of split {args.split} has a label", "annotate one whose image labels are known")
    kinds, how, who = _kinds(args, file), _map_options(args), Workers(args.jobs, args.scheduler)
    refined = [] if config.crf == "none" else _refined(args, kinds)
    threshold = {"foreground_threshold": config.foreground_threshold}
    with outputs.filling(out):
        claimed = [_claim(out, "annotate", file, how, **threshold)]
        made_of = outputs.made_of(pictures, claimed[0].identity, labels=True)
        renewed = [name for kind in kinds for name in outputs.discard_stale(out / kind, ".png", made_of)]
        work = partial(_annotate, file, pictures, out, how | threshold | {"kinds": kinds})
        report = run_shares(len(pictures), work, who, how["batch_size"])
        for source in refined:
            kinds = [*kinds, f"{source}_crf"]
            folder = out / kinds[-1]
            claimed.append(runs.claim_folder(folder, "refine", crf=config.crf, tau=config.tau))
            there = pictures.select(report.written + report.skipped)
            made_of = outputs.made_of(there, claimed[-1].identity, labels=True, beside=out / source)
            renewed += outputs.discard_stale(folder, ".png", made_of)
            how_refined = config.tau, config.crf, who, args.crf_backend, args.device
            report.failed |= refine_split(there, out / source, folder, *how_refined).failed
        report.renewed += renewed
        _finish(report, *claimed)
    return report, kinds


def _annotate(file: ModelFile, pictures: Pictures, out: Path, how: dict[str, Any], places: range) -> Report:
    share = pictures.with_records([pictures.records[place] for place in places])
    return annotate_split(_attention_model(file), share, out, **how)


def _refined(args: argparse.Namespace, kinds: Sequence[str]) -> list[str]:
    """The kinds whose annotations the CRF refines: those asked for, else the merged, else the first."""
    asked = args.refine or ["merged" if "merged" in kinds else kinds[0]]
    if strange := [kind for kind in asked if kind not in kinds]:
        raise UsageError(f"--refine {strange[0]}: choose of what is made, {', '.join(kinds)}")
    return asked


def _kinds(args: argparse.Namespace, file: ModelFile) -> list[str]:
    """The kinds of map asked for, or all that this model has."""
    config = _attention_model(file).config
    there = ["discriminative"] if config is not None and config.head == "single_stream" else list(MAP_KINDS)
    kinds = there if args.kinds is None else args.kinds
    if not kinds or any(kind not in there for kind in kinds):
        raise UsageError(f"--kinds {','.join(kinds)}: this model has {', '.join(there)}; choose of these")
    return kinds


# --- masks ------------------------------------------------------------------------------------------------------------


def segment(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna segment``."""
    named = _named(args)
    if named and (args.kinds or args.archive):
        raise UsageError("--kinds and --archive go with a data set (--data)")
    usual = {} if args.model else {"scales": SHIPPED_SCALES}
    config = InferenceConfig(**usual | given(args, InferenceConfig))
    _require_crf(args, config)
    return _segment_pictures(args, named, config) if named else _segment_data(args, config)


def _segment_data(args: argparse.Namespace, config: InferenceConfig) -> dict[str, Any]:
    kinds = args.kinds or (["multi"] if config.crf == "none" else ["crf"])
    if strange := [kind for kind in kinds if kind not in MASK_KINDS or (kind == "crf" and config.crf == "none")]:
        raise UsageError(f"--kinds {strange[0]}: choose from single, multi and, unless --no-crf is given, crf")
    pictures, path = _split(args), _model_path(args, checkpoints.SEGMENTATION)
    networks.load(path, pictures.class_names)  # one of other classes is refused before anything is written
    if args.archive:
        refuse_unwritable(args.archive)
    shown = {"scales": config.scales, "flip": config.flip, "precision": config.precision}
    how: dict[str, Any] = {"kinds": kinds, "batch_size": 1, **given(args, MapConfig), **shown}
    with outputs.filling(args.out):
        claimed = [runs.claim_folder(args.out, "segment", model=runs.file_digest(path), **shown)]
        renewed = []
        for kind in kinds:
            if kind == "crf":
                claimed.append(runs.claim_folder(args.out / kind, "refine", crf=config.crf))
                how |= {"params": config.crf, "backend": args.crf_backend}
            made_with = (run.identity for run in (claimed if kind == "crf" else claimed[:1]))
            renewed += outputs.discard_stale(args.out / kind, ".png", outputs.made_of(pictures, *made_with))
        report = segment_shares(path, pictures, args.out, Workers(args.jobs, args.scheduler), args.device, **how)
        report.renewed += renewed
        _finish(report, *claimed)
        result = _wrote(args.out, report, kinds=kinds)
        if args.archive:
            result["archive"] = archive.server_archive(args.out / kinds[-1], pictures, args.archive)
            print(result["archive"])
    return result


def _segment_pictures(args: argparse.Namespace, records: Sequence[Record], config: InferenceConfig) -> dict[str, Any]:
    """Each picture into its own folder; whatever happens to one, the others are done."""
    result: dict[str, Any] = {"done": 0, "pictures": [], "failed": {}}
    device = choose_device(args.device)
    model = networks.load(_model_path(args, checkpoints.SEGMENTATION)).to(device)
    with outputs.filling(args.out):
        for record in records:
            with noted(args, result, record.id):
                about = (model, args.out / record.id, config, args.max_side, args.crf_backend)
                shown = photos.write_segmentation(record.image, *about)
                result["pictures"].append(shown)
                print(photos.summary(shown))
    return result


# --- scores -----------------------------------------------------------------------------------------------------------


def evaluate(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna evaluate``."""
    if bool(args.annotations) == bool(args.model):
        raise UsageError("name either a FOLDER of annotations or a model (--model)")
    if args.record and not args.model:
        raise UsageError("--record goes with --model: the provenance of a folder of annotations is not known")
    if args.record:
        refuse_unwritable(result_path(args.record))  # before anything is measured
    pictures, config = _split(args), AnnotationConfig(**{"crf": "none"} | given(args, AnnotationConfig))
    _require_crf(args, config)
    if args.model:
        result = _evaluate_model(args, pictures, config)
    else:
        rows = {args.annotations.name: _row(args, args.annotations, pictures)}
        result = {"done": len(pictures), "rows": rows}
    print(f"Percent; means over classes, background included; predicted void counts as {args.void}.")
    print(f"{'':<20}{'precision':>10}{'recall':>10}{'IoU':>10}")
    for name, row in result["rows"].items():
        classes = {f"  {c}": values for c, values in row["per_class"].items()} if args.per_class else {}
        for label, values in ({name: row} | classes).items():
            print(f"{label:<20}" + "".join(f"{values[measure]:10.1f}" for measure in MEASURES))
    if args.record:
        _record(args, pictures, result, config)
    return {"split": args.split, "void": args.void, **result}


def _evaluate_model(args: argparse.Namespace, pictures: Pictures, config: AnnotationConfig) -> dict[str, Any]:
    """The protocol of Table I: annotate with the true image labels, then score each kind of map."""
    if args.scheduler and not args.out:
        raise UsageError("the workers of a cluster need a folder that they share: --out FOLDER")
    file = ModelFile(args.model.absolute(), args.device, pictures.class_names)
    with nullcontext(args.out) if args.out else tempfile.TemporaryDirectory(prefix="dsna-") as folder:
        report, kinds = _annotate_data(args, without_masks(pictures), file, Path(folder), config)
        left = pictures.select([record.id for record in pictures.records if record.id not in report.failed])
        rows = {kind: _row(args, Path(folder) / kind, left) for kind in kinds if len(left)}
    print(f"{len(left)} pictures of {args.split}, annotated with their true image labels.")
    return {"done": len(left), "labels": "the true image labels", "failed": report.failed, "rows": rows}


def _row(args: argparse.Namespace, folder: Path, pictures: Pictures) -> dict[str, Any]:
    """The means and every class's values of a folder of annotations, in percent."""
    matrix: ConfusionMatrix = score(folder, pictures, args.void, Workers(args.jobs, args.scheduler))
    percent = (100 * np.stack([matrix.precision, matrix.recall, matrix.iou], axis=1)).round(2).tolist()
    classes = zip(("background", *pictures.class_names), percent, strict=True)
    return matrix.summary() | {"per_class": {c: dict(zip(MEASURES, row, strict=True)) for c, row in classes}}


def _record(args: argparse.Namespace, pictures: Pictures, result: dict[str, Any], config: AnnotationConfig) -> None:
    """Keep the scores with everything that explains them."""
    crf, backend = config.crf, choose_backend(args.crf_backend, choose_device(args.device))
    provenance = {
        "command": "dsna evaluate",
        "split": args.split,
        "pictures": result["done"],
        "data": runs.data_digest(pictures, masks=True),
        "labels": result["labels"],
        "protocol": f"{_map_config(args)}, predicted void counts as {args.void}",
        "crf": crf if crf == "none" else {"preset": crf, "tau": config.tau, "backend": backend, **asdict(preset(crf))},
        "note": args.note or "",
        "trained": runs.model_provenance(args.model),
    }
    print(f"written to {write_result(args.record, {'rows': result['rows']}, provenance)}")
