"""Make a trained model one of those that come with the package, with its learning curve on record.

    python tools/ship_checkpoint.py RUN NAME     # runs/train/DIGEST, efficientnet_lite0_drawn_decoupled

Writes ``dsna_lib/checkpoints/NAME.pth`` in half precision, and into ``results/checkpoints.json`` where it comes from:
recipe, curve, machine, and the digest of the file that ships. The other models of that file stay as they are.
"""

from __future__ import annotations

import argparse
from pathlib import Path

from dsna_lib import attention, checkpoints, training
from dsna_lib.engine import runs
from dsna_lib.engine.files import read_json
from dsna_lib.engine.provenance import write_result
from dsna_lib.segmentation import networks

FOLDER = Path(checkpoints.__file__).parent
RECORD = FOLDER.parents[1] / "results" / "checkpoints.json"
LARGEST = 8_000_000  # bytes


def ship(run: Path, name: str) -> None:
    """See the module."""
    stage = read_json(run / "run.json", {"stage": str})["stage"]
    kind = networks if stage == "segmentation" else attention
    measure = "mean_iou" if stage == "segmentation" else "mean_average_precision"
    target = FOLDER / f"{name}.pth"
    kind.save(kind.load(run / "model.pth"), target, half=True)
    size = target.stat().st_size
    if size > LARGEST:
        target.unlink()
        raise SystemExit(f"{target}: {size:,} bytes, and {LARGEST:,} is the most")
    record = read_json(RECORD, {"values": dict})["values"] if RECORD.is_file() else {}
    known = {"bytes": size, "shipped": runs.file_digest(target), "curve": training.read_curve(run, measure)}
    record[name] = known | runs.model_provenance(run / "model.pth")
    write_result(
        RECORD.stem, dict(sorted(record.items())), {"what": "models that come with the package"}, RECORD.parent
    )
    print(f"{target}: {size:,} bytes")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, help="the folder of a finished training")
    parser.add_argument("name", help="of the checkpoint")
    args = parser.parse_args()
    ship(args.run, args.name)
