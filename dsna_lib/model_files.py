"""Model files: a network's configuration and the weights that training changed, in one file.

Backbone stages that stayed as ImageNet left them are not written; reading fetches them again from where they came.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dsna_lib import backbones
from dsna_lib.backbones import CheckpointError
from dsna_lib.data.pictures import DataError, checked_names
from dsna_lib.engine.errors import SettingError, first_few
from dsna_lib.engine.files import write_atomically


def save(model: Any, path: str | Path, form: str, half: bool = False) -> None:
    """Write a model file.

    Args:
        model: a network with a `config` (a dataclass with ``weights``) and a `backbone`.
        path, form: where to; `form` names the kind of file, such as ``"dsna-attention-1"``.
        half: store half-precision numbers (half the size, and 3 digits are enough to run it).
    """
    config, backbone = model.config, model.backbone
    frozen = len(backbone.stages) - backbone.trained_stages if config.weights == "imagenet" else 0
    skip = tuple(f"backbone.stages.{i}." for i in range(frozen))
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items() if not k.startswith(skip)}
    if half:
        state = {k: v.half() if v.is_floating_point() else v for k, v in state.items()}
    known = {"class_names": list(config.class_names), "weights": backbones.weights_name(config.weights)}
    content = {"format": form, "config": asdict(config) | known, "state": state}
    write_atomically(path, lambda file: torch.save(content, file))


def load(
    path: str | Path, form: str, config_type: type, create: Callable[[Any], Any], class_names: Sequence[str] | None
) -> Any:
    """Read a model file that :func:`save` wrote: the network in evaluation mode, on the CPU.

    Args:
        path, form: the file, and the kind of file expected.
        config_type, create: of the network's configuration, and what makes the network from it.
        class_names: the classes that the caller's data has; None for whatever the model has.

    Raises:
        CheckpointError: no model file, a damaged one, or one of another kind or for other classes; both are named.
            Or one whose configuration cannot be, or with weights that are no numbers.
    """
    content: dict[str, Any] = backbones.load_weights(path)
    kind = content.get("format")
    if kind != form:
        what = f"a {kind} file" if isinstance(kind, str) else "a checkpoint, but no model file of this book"
        raise CheckpointError(f"{path}: is {what}, and {form} was wanted")
    config, state = _config(content.get("config"), config_type, path), _state(content.get("state"), path)
    if class_names is not None and tuple(class_names) != config.class_names:
        raise CheckpointError(
            f"{path}: knows {len(config.class_names)} classes ({', '.join(config.class_names[:3])}, ...), "
            f"the data has {len(class_names)} ({', '.join(class_names[:3])}, ...)"
        )
    # The first stages, or all of them, are not in the file where create() can fetch them.
    complete = config.weights != "imagenet" or any(name.startswith("backbone.stages.0.") for name in state)
    try:
        model = create(replace(config, weights=None if complete else "imagenet"))
    except (SettingError, RuntimeError, TypeError) as error:  # torch's own where a size is beyond memory
        reason = str(error).partition("\n")[0]
        raise CheckpointError(f"{path}: its network cannot be made: {reason}") from error
    own = model.state_dict()
    for name, tensor in state.items():
        if name in own and own[name].is_floating_point() != tensor.is_floating_point():
            raise CheckpointError(f"{path}: {name} holds {tensor.dtype}, and {own[name].dtype} is wanted")
    fetched = {} if complete else {k: v for k, v in own.items() if k.startswith("backbone.")}
    backbones.load_into(model, fetched | state, path)
    if wrong := [name for name, tensor in model.state_dict().items() if not torch.isfinite(tensor).all()]:
        raise CheckpointError(f"{path}: holds NaN or infinite weights in {first_few(wrong)}", "train it anew")
    model.config = config
    return model


def _config(content: Any, config_type: type, path: str | Path) -> Any:
    """The configuration in a model file; what the file does not say has its default, but classes and backbone."""
    if not isinstance(content, dict):
        raise CheckpointError(f"{path}: its config is a {type(content).__name__}, not a table of settings")
    known = {field.name for field in fields(config_type)}
    if unknown := [str(name) for name in content if name not in known]:
        raise CheckpointError(f"{path}: its config has {first_few(unknown)}, unknown here", "update the library")
    if missing := [name for name in ("class_names", "backbone") if name not in content]:
        raise CheckpointError(f"{path}: its config lacks {first_few(missing)}")
    try:
        return config_type(**content | {"class_names": checked_names(content["class_names"], "class_names")})
    except (SettingError, DataError) as error:
        raise CheckpointError(f"{path}: its config cannot be: {error}") from error


def _state(content: Any, path: str | Path) -> dict[str, Tensor]:
    """The weights in a model file."""
    if not isinstance(content, Mapping) or not all(isinstance(name, str) for name in content):
        raise CheckpointError(f"{path}: its state is no table of weights by name")
    for name, value in content.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            raise CheckpointError(f"{path}: {name} is no tensor that holds numbers")
    return dict(content)
