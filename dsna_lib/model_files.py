"""Model files: a network's configuration and the weights that training changed, in one file.

Backbone stages that stayed as ImageNet left them are not written; reading fetches them again from where they came.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch

from dsna_lib import backbones
from dsna_lib.backbones import CheckpointError
from dsna_lib.engine.files import refuse_special, write_atomically


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
    content = {"format": form, "config": asdict(config) | {"class_names": list(config.class_names)}, "state": state}
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
    """
    refuse_special(path, CheckpointError)
    content: dict[str, Any] = backbones.load_weights(path)
    kind = content.get("format")
    if kind != form:
        what = f"a {kind} file" if isinstance(kind, str) else "a checkpoint, but no model file of this book"
        raise CheckpointError(f"{path}: is {what}, and {form} was wanted")
    config = config_type(**content["config"] | {"class_names": tuple(content["config"]["class_names"])})
    if class_names is not None and tuple(class_names) != config.class_names:
        raise CheckpointError(
            f"{path}: knows {len(config.class_names)} classes ({', '.join(config.class_names[:3])}, ...), "
            f"the data has {len(class_names)} ({', '.join(class_names[:3])}, ...)"
        )
    # The first stages, or all of them, are not in the file where create() can fetch them.
    complete = any(name.startswith("backbone.stages.0.") for name in content["state"])
    model = create(replace(config, weights=None if complete else "imagenet"))
    fetched = {} if complete else {k: v for k, v in model.state_dict().items() if k.startswith("backbone.")}
    backbones.load_into(model, fetched | content["state"], path)
    model.config = config
    return model
