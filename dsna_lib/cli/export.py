"""``dsna export``: a model file as ONNX."""

from __future__ import annotations

import argparse
from typing import Any

from dsna_lib import checkpoints
from dsna_lib.cli.options import given
from dsna_lib.config.recipe import MapConfig
from dsna_lib.engine.files import refuse_unwritable
from dsna_lib.export import export as write


def export(args: argparse.Namespace) -> dict[str, Any]:
    """``dsna export``."""
    path = checkpoints.find(args.model)
    file = args.out / f"{path.stem}.onnx"
    refuse_unwritable(file)
    terms = args.license or (checkpoints.LICENSE if path.parent == checkpoints.FOLDER else "")
    about = write(path, args.out, **given(args, MapConfig), terms=terms)
    sizes = " x ".join(str(side) for side in about["input"]["shape"][2:])
    print(f"{file}: {about['bytes'] / 1e6:.1f} MB, for pictures of {sizes} pixels")
    print(f"{file.with_suffix('.json')}: what goes in and comes out; differs from PyTorch by {about['difference']:.1g}")
    return {"done": 1, **about, "folder": args.out}
