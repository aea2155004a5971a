"""What maps and pseudo-annotations cost on top of the bare backbone, measured side by side in one run.

The backbone's forward pass and the whole way to pseudo-annotations (attention head, Eq. 11, resizing to the
picture's size, thresholds; no CRF, no files) run in turns on the same pictures; the ratio of medians is reported.

    python benchmarks/annotation_cost.py --backbone vgg16 [--rounds 15] [--precision bf16]
"""

from __future__ import annotations

import argparse
import statistics
import time

import torch

from dsna_lib import annotate, attention, maps
from dsna_lib.config.attention import ModelConfig
from dsna_lib.data import voc
from dsna_lib.engine.provenance import write_result

WARM_UP = 2  # rounds


def main(arguments: list[str] | None = None) -> None:
    """Run from the command line."""
    ask = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    ask.add_argument("--backbone", default="vgg16")
    ask.add_argument("--batch-size", type=int, default=8)
    ask.add_argument("--rounds", type=int, default=15)
    ask.add_argument("--precision", default="no", choices=["no", "bf16"])
    ask.add_argument("--name", default="", help="results/NAME.json is written")
    args = ask.parse_args(arguments)
    torch.manual_seed(0)
    # The time does not depend on the weights' values.
    model = attention.create(ModelConfig(voc.CLASS_NAMES, args.backbone, weights=None))
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model.to(device)
    batch = torch.rand(args.batch_size, 3, 224, 224, device=device).to(memory_format=torch.channels_last)
    labels, size = [7, 14], (375, 500)  # two classes present, VOC's usual size

    def bare_pass() -> None:
        model.backbone(batch)

    def annotate_all() -> None:
        output = model(batch)
        merged = maps.from_output(output)["merged"]
        for place in range(len(batch)):
            annotate.pseudo_annotation(merged[place], output.features[place].float(), labels, size).cpu()

    seconds: dict[str, list[float]] = {"backbone": [], "annotated": []}
    with torch.inference_mode(), torch.autocast(device.type, torch.bfloat16, enabled=args.precision == "bf16"):
        for step in range(WARM_UP + args.rounds):
            for name, work in (("backbone", bare_pass), ("annotated", annotate_all)):
                start = time.perf_counter()
                work()
                if device.type == "cuda":
                    torch.cuda.synchronize()
                if step >= WARM_UP:
                    seconds[name].append((time.perf_counter() - start) / len(batch))
    medians = {name: statistics.median(values) for name, values in seconds.items()}
    ratio = medians["annotated"] / medians["backbone"]
    print(
        f"{args.backbone}, {args.precision}: backbone {1e3 * medians['backbone']:.1f} ms a picture, "
        f"with maps and annotations {1e3 * medians['annotated']:.1f} ms, ratio {ratio:.3f}"
    )
    if args.name:
        values = {
            "milliseconds_a_picture": {k: round(1e3 * v, 2) for k, v in medians.items()},
            "ratio": round(ratio, 3),
        }
        write_result(args.name, values, {"script": "benchmarks/annotation_cost.py", "arguments": vars(args)})


if __name__ == "__main__":
    main()
