"""How alike the maps of different classes are in photographs that show several, and what that does to annotations.

Table `similarity` says it of drawn pictures; here it is said of a trained model, on a split of VOC with masks. Only
pictures with several classes are looked at. What is measured is that table's: the cosine similarity of two present
classes' maps, the share of object pixels that the annotation gives to another class, and the mean IoU.

    python benchmarks/similarity.py --root VOCdevkit [--model FILE] [--split val] [--size 256] [--name similarity_lite0]
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dsna_lib import attention, checkpoints
from dsna_lib.data import voc
from dsna_lib.data.pictures import Pictures
from dsna_lib.engine.devices import choose_device
from dsna_lib.engine.provenance import write_result
from dsna_lib.engine.runs import data_digest, model_provenance
from dsna_lib.maps import MAP_KINDS
from dsna_lib.tables.measure import MapProtocol, measure

COLUMNS = ("similarity", "confused", "several_iou")


def with_several_classes(pictures: Pictures) -> Pictures:
    """Those whose labels name more than one class."""
    return pictures.with_records([record for record in pictures.records if len(record.labels) > 1])


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--root", required=True)
    ask.add_argument("--model", type=Path, default=checkpoints.ATTENTION)
    ask.add_argument("--split", default="val")
    ask.add_argument("--size", type=int, default=256)
    ask.add_argument("--precision", default="no", choices=["no", "bf16"])
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    pictures = with_several_classes(voc.load(args.root, args.split))
    model = attention.load(args.model, pictures.class_names).to(choose_device())
    protocols = {kind: MapProtocol(kind) for kind in MAP_KINDS}
    measured = measure(model, pictures, list(protocols.values()), args.size, precision=args.precision)
    scores = {kind: measured.scores(protocol) for kind, protocol in protocols.items()}
    rows = {kind: {column: scores[kind][column] for column in COLUMNS} for kind in protocols}
    pairs = len(measured.similarity[protocols["merged"]])
    print(f"{len(pictures)} pictures of {args.split} with several classes, {pairs} pairs of classes; percent")
    print(f"{'map':15}" + "".join(f"{column:>13}" for column in COLUMNS))
    for kind, row in rows.items():
        print(f"{kind:15}" + "".join(f"{row[column]:13.1f}" for column in COLUMNS))
    if args.name:
        asked = {"split": args.split, "size": args.size, "precision": args.precision, "labels": "true image labels"}
        data = {"pictures": len(pictures), "pairs": pairs, "data": data_digest(pictures, masks=True)}
        how = {"script": "benchmarks/similarity.py"} | asked | data | {"trained": model_provenance(args.model)}
        write_result(args.name, {"rows": rows}, how)


if __name__ == "__main__":
    main()
