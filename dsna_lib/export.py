"""Model files as ONNX, for programs that run networks without PyTorch: a browser, a phone, another language.

A network's file comes with a JSON file that says what goes in, what comes out, and which model it is.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from dsna_lib import attention, backbones, maps
from dsna_lib.attention import AttentionModel
from dsna_lib.config.recipe import MapConfig
from dsna_lib.convolutions import recast
from dsna_lib.engine import runs
from dsna_lib.engine.errors import RunError
from dsna_lib.engine.files import plain, write_atomically, write_json
from dsna_lib.segmentation import networks
from dsna_lib.segmentation.networks import SegmentationModel

FORMAT = "dsna-onnx-1"  # of the JSON file
TOLERANCE = 1e-3  # of an output, against PyTorch's, as a share of its largest value (of 1, where that is smaller)
OPSET = 17
PICTURES = ("pictures", 3, "height", "width")
MEANING = {
    "scores": "class scores p, logits (Eq. 9)",
    "a": "attention weights, which sum to 1 over space (Eq. 6)",
    "s": "dense class scores, of either sign (Eq. 8)",
    "expansive": "a, scaled from its lowest to its highest value to 0..1",
    "discriminative": "s without its negative part, divided by its maximum, in 0..1",
    "merged": "the expansive and the discriminative map, weighted by the softmax of the scores (Eq. 11)",
    "background": "the sum of the backbone's features over channels, low where the background is",
    "logits": "a score for each cell and class; class 0 is the background",
}


class _Outputs(nn.Module):
    """A network with its outputs as a tuple, in the order of `shapes`; pictures tell which there are."""

    def __init__(self, model: AttentionModel | SegmentationModel, pictures: Tensor) -> None:
        super().__init__()
        self.model = model
        with torch.no_grad():
            made = self._named(pictures)
        grid = ("rows", "columns")
        self.shapes = {name: ("pictures", part.shape[1], *grid[: part.ndim - 2]) for name, part in made.items()}

    def _named(self, pictures: Tensor) -> dict[str, Tensor]:
        output = self.model(pictures)
        if isinstance(output, Tensor):
            return {"logits": output}
        assert output.features is not None, "it comes from a whole model"
        raw = {"scores": output.scores, "a": output.expansive, "s": output.discriminative}
        named = {name: values for name, values in raw.items() if values is not None} | maps.from_output(output)
        return named | {"background": output.features.sum(dim=1, keepdim=True)}

    def forward(self, pictures: Tensor) -> tuple[Tensor, ...]:
        """Pictures ``(N, 3, H, W)`` to what `shapes` names."""
        return tuple(self._named(pictures).values())


def export(path: str | Path, folder: str | Path, size: int = MapConfig.size, terms: str = "") -> dict[str, Any]:
    """Write a model file as ``folder/STEM.onnx``, and what there is to know of it as ``folder/STEM.json``.

    Weights that half precision holds exactly, as in the files of this package, are stored so, and computed with in
    full. What the file computes is held against PyTorch before this returns.

    Args:
        path: of an attention model or a segmentation network.
        folder: where to.
        size: side in pixels of the square pictures that the file is made and checked with. Others may have any size,
            unless the backbone takes this one alone; the JSON file says which.
        terms: the model's license.

    Returns:
        What the JSON file holds.

    Raises:
        ImportError: onnx or onnxruntime is not installed.
        CheckpointError: no such model file.
        SettingError: a size that the backbone cannot take.
        RunError: the file does not compute what PyTorch does.

    Example:
        >>> export(checkpoints.ATTENTION, "onnx")["outputs"]["merged"]["shape"]  # doctest: +SKIP
        ['pictures', 20, 'rows', 'columns']
    """
    _require()
    kind = "segmentation" if backbones.load_weights(path).get("format") == networks.FORMAT else "attention"
    model = networks.load(path) if kind == "segmentation" else attention.load(path)
    return write(model, Path(folder) / f"{Path(path).stem}.onnx", size, terms, Path(path))


def write(model: AttentionModel | SegmentationModel, file: Path, size: int, terms: str, source: Path) -> dict[str, Any]:
    """Write a network from memory; `source` is the model file that it was read from. See :func:`export`."""
    model = copy.deepcopy(model).eval().requires_grad_(False)
    for name, layer in list(model.named_modules()):
        if isinstance(layer, nn.Conv2d) and layer.padding == "same":  # ONNX has it for kernels without dilation only
            recast(model, name, nn.Conv2d)
    if isinstance(model, SegmentationModel):  # cells on the border, where interpolation expects them
        size = model.stride * max(1, round((size - 1) / model.stride)) + 1
    noise = partial(torch.rand, generator=torch.Generator().manual_seed(0))
    first, others = noise(1, 3, size, size), noise(2, 3, size + 32, size + 64)
    network = _Outputs(model, first)
    content = _content(network, first, True)
    if not (any_size := _serves(network, content, others)):
        content = _content(network, first, False)
    if not (difference := _difference(network, content, first)) <= TOLERANCE:
        raise RunError(f"{file}: computes something else than PyTorch (by {difference:.2g})", "use another backbone")
    write_atomically(file, lambda out: out.write(content))
    assert model.config is not None, "it comes from a file"
    about: dict[str, Any] = {
        "format": FORMAT,
        "kind": "segmentation" if isinstance(model, SegmentationModel) else "attention",
        "file": file.name,
        "bytes": len(content),
        "model": {"file": source.name, "digest": runs.file_digest(source)},
        "license": terms,
        "class_names": model.config.class_names,
        "input": {
            "name": PICTURES[0],
            "shape": PICTURES if any_size else (*PICTURES[:2], size, size),
            "values": "RGB in 0..1; the network itself subtracts the mean and divides by the deviation",
            "mean": torch.as_tensor(model.backbone.mean).flatten().tolist(),
            "std": torch.as_tensor(model.backbone.std).flatten().tolist(),
            "size": size,
            "stride": model.config.output_stride,
        },
        "outputs": {name: {"shape": shape, "meaning": MEANING[name]} for name, shape in network.shapes.items()},
        "difference": difference,
    }
    write_json(file.with_suffix(".json"), about)
    return plain(about)


def _require() -> None:
    try:
        import onnx  # noqa: F401
        import onnxruntime  # noqa: F401
    except ImportError as error:
        raise ImportError(f'an export needs {error.name}: pip install "dsna-book[export]"') from error


def _content(network: _Outputs, pictures: Tensor, any_size: bool) -> bytes:
    """The ONNX file of a network, for any number of pictures."""
    import onnx

    named = {"pictures": PICTURES} | network.shapes
    axes = {name: {k: axis for k, axis in enumerate(shape) if isinstance(axis, str)} for name, shape in named.items()}
    with TemporaryDirectory() as folder, warnings.catch_warnings(), torch.no_grad():
        file = Path(folder, "made.onnx")
        # Of what depends on the values of tensors; sizes are looked at once written. And that there is an exporter
        # that follows Python's own code: it takes a hundred times as long for the same file.
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (pictures,),
            file,
            input_names=["pictures"],
            output_names=list(network.shapes),
            dynamic_axes=axes if any_size else {name: {0: "pictures"} for name in axes},
            opset_version=OPSET,
            dynamo=False,
            # Weights as they are in the model file: what reads this one folds normalization into them by itself.
            training=torch.onnx.TrainingMode.PRESERVE,
            do_constant_folding=False,
        )
        return _narrowed(onnx.load(file)).SerializeToString()


def _narrowed(made: Any) -> Any:
    """The same graph, in which weights that half precision holds exactly are stored so, and no number has 64 bits."""
    from onnx import TensorProto, helper, numpy_helper

    for node in made.graph.node:  # Python's own numbers, which are cast where they meet tensors; not every runtime can
        for value in (attribute.t for attribute in node.attribute if attribute.t.data_type == TensorProto.DOUBLE):
            value.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(value).astype(np.float32)))
    for weights in made.graph.initializer:
        values = numpy_helper.to_array(weights)
        with np.errstate(over="ignore"):
            half = values.astype(np.float16)
        if values.dtype == np.float32 and values.size > 64 and np.array_equal(half.astype(np.float32), values):
            name = weights.name
            weights.CopyFrom(numpy_helper.from_array(half, f"{name}.half"))
            cast = helper.make_node("Cast", [weights.name], [name], name=f"{name}.cast", to=TensorProto.FLOAT)
            made.graph.node.insert(0, cast)
    return made


def _serves(network: _Outputs, content: bytes, pictures: Tensor) -> bool:
    """Whether an ONNX file that was made with pictures of another size computes what PyTorch does."""
    try:
        return _difference(network, content, pictures) <= TOLERANCE
    except Exception:  # PyTorch's or the runtime's own, of many types: a backbone of one size
        return False


def _difference(network: _Outputs, content: bytes, pictures: Tensor) -> float:
    """By how much an ONNX file's outputs differ from PyTorch's, see :data:`TOLERANCE`."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4  # what fails is raised; nobody needs to read it twice
    session = onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    with torch.no_grad():
        wanted: Sequence[Tensor] = network(pictures)
    got = session.run(list(network.shapes), {"pictures": pictures.numpy()})
    pairs = zip(got, wanted, strict=True)
    return max(float(np.abs(own - theirs.numpy()).max() / max(1, theirs.abs().max())) for own, theirs in pairs)
