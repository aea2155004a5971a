"""``dsna data``: make, check, download, convert or split data sets."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from tqdm import tqdm

from dsna_lib.cli.options import given
from dsna_lib.config.drawn import DrawnConfig, HelpConfig
from dsna_lib.config.split import SplitConfig
from dsna_lib.data import PictureError, Pictures, Record, exports, folder, minivoc, read_image, read_mask, voc
from dsna_lib.data import download as downloads
from dsna_lib.data import help as helps
from dsna_lib.engine.errors import first_few


def make(args: argparse.Namespace) -> dict[str, Any]:
    """The drawn data set's folder and options."""
    config = DrawnConfig(**given(args, DrawnConfig))
    made = minivoc.make(args.out, **asdict(config))
    print(f"{made}: {config.train} training and {config.val} validation pictures")
    result = {"done": config.train + config.val, "folder": made, **asdict(config)}
    asked = given(args, HelpConfig)
    if args.with_help or asked:
        told = HelpConfig(**asked)
        place = minivoc.make_help(made, config.workers, **asdict(told))
        print(f"{place}: points, scribbles and boxes of all pictures, {told.web} pictures of one animal from the web,")
        print(f"  {told.videos} clips, and {told.saliency} and {told.other_masks} pictures of other animals with masks")
        result |= {"help": place, **asdict(told)}
    return result


def check(args: argparse.Namespace) -> dict[str, Any]:
    """Counts by split, and what is missing or damaged."""
    if args.write_train_aug:
        print(downloads.add_train_aug(args.root))
    splits = voc.check(args.root)
    if not splits:
        raise FileNotFoundError(f"{args.root}: no splits; ImageSets/Segmentation/*.txt should list picture ids")
    failed = {}
    for split, counts in splits.items():
        print(f"{split:<12}" + ", ".join(f"{count} {what}" for what, count in counts.items()))
        for what in ("pictures",) if split == "test" else ("pictures", "labels"):
            lacking = counts["listed"] - counts[what]
            if lacking:
                share = f"{lacking} of {counts['listed']} {what}"
                failed[f"{split}/{what}"] = f"{share} are missing or damaged; --decode names them"
    told: dict[str, int] = {}
    if args.decode or helps.is_there(args.root):
        pictures, bad = _pictures(args, list(splits))
        if args.decode:
            failed |= _bad_files(pictures, bad) | minivoc.changed_help(voc.find_root(args.root))
        told, bad = helps.check_help(pictures, args.decode)
        failed |= bad
        for kind, count in told.items():
            print(f"{kind:<12}{count} pictures ({helps.origin(pictures)})")
    result: dict[str, Any] = {
        "done": sum(counts["pictures"] for counts in splits.values()),
        "splits": splits,
        "failed": failed,
    } | ({"help": told} if told else {})
    if source := downloads.train_aug_source(args.root):
        result["warnings"] = [f"train_aug is not complete; it can be made of {source}: add --write-train-aug"]
    return result


def _pictures(args: argparse.Namespace, splits: Sequence[str]) -> tuple[Pictures, dict[str, str]]:
    """The pictures of all splits, and what is wrong with the labels of some."""
    records: dict[str, Record] = {}
    bad: dict[str, str] = {}
    for split in splits:
        pictures = voc.load(args.root, split, failed=bad)
        records |= {record.id: record for record in pictures.records}
    return pictures.with_records(list(records.values())), bad


def _bad_files(pictures: Pictures, bad: dict[str, str]) -> dict[str, str]:
    """Open every picture and mask; what cannot be used, and why."""
    for record in tqdm(pictures.records, leave=False, disable=None, unit="picture"):
        try:
            size = read_image(record.image).shape[:2]
            for mask in filter(None, (record.mask, record.part)):
                read_mask(mask, size, pictures.num_classes)
        except PictureError as error:
            bad[record.id] = "; ".join(filter(None, (bad.get(record.id), str(error))))
    print(f"opened {len(pictures)} pictures and their masks: {len(bad)} problems")
    return bad


def download(args: argparse.Namespace) -> dict[str, Any]:
    """The folder of VOC."""
    there = downloads.download_voc(args.root, sbd=not args.no_sbd)
    print(there)
    return {"done": 1, "folder": there}


def convert(args: argparse.Namespace) -> dict[str, Any]:
    """How many pictures a folder's table names, and how many of them are negative."""
    shown = exports.convert(args.export, args.root)
    names, negative = sorted(set().union(*shown.values())), sum(not labels for labels in shown.values())
    told = f"{len(shown)} pictures, {negative} of them negative; classes: {first_few(names, 5)}"
    print(f"{args.root / folder.TABLE}: {told}")
    return {"done": len(shown), "negative": negative, "classes": names}


def split(args: argparse.Namespace) -> dict[str, Any]:
    """How many pictures each split got."""
    config = SplitConfig(**given(args, SplitConfig))
    counts = folder.draw_splits(args.root, **asdict(config))
    print(f"{args.root / folder.TABLE}: {counts['train']} pictures of train and {counts['val']} of val")
    return {"done": sum(counts.values()), "splits": counts, **asdict(config)}
