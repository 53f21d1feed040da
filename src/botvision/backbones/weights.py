"""Models in and out: folders that rebuild a model, and the names of the classes in them."""

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch
from safetensors.torch import save
from torch import Tensor, nn

from botvision.backbones.classes import ClassNames, NamedWeights
from botvision.backbones.loading import load_weights
from botvision.backbones.models import create_model
from botvision.backbones.stored import read_description, size_of
from botvision.io.errors import text_of
from botvision.io.files import replacing, write_text
from botvision.io.read import read_object

M = TypeVar("M", bound=nn.Module)
WEIGHTS_FILE = "model.safetensors"
DESCRIPTION_FILE = "model.json"


def save_model(
    model: nn.Module,
    folder: str | Path,
    name: str,
    kwargs: Mapping[str, Any],
    **extra: Any,  # noqa: ANN401
) -> None:
    """Write `model.safetensors` and `model.json`, from which `load_model` rebuilds the model.

    Each file is written under a temporary name and renamed; the JSON comes last.

    Args:
        model: created by `create_model(name, **kwargs)`, then trained.
        folder: made if it is not there.
        name: of the model.
        kwargs: of `create_model`; plain values.
        **extra: what else the JSON shall hold (classes, image_size, mean, std, task).
    """
    folder = Path(folder)
    description = json.dumps({"name": name, "kwargs": dict(kwargs), **extra}, indent=2) + "\n"
    state = {key: value.detach().cpu().contiguous().clone() for key, value in model.state_dict().items()}
    with replacing(folder / WEIGHTS_FILE) as temporary:
        temporary.write_bytes(save(state))  # save_file would make it readable by its owner alone
    write_text(folder / DESCRIPTION_FILE, description)


def load_model(folder: str | Path) -> tuple[nn.Module, dict[str, Any]]:
    """Return the model of a folder written by `save_model`, in eval mode on the CPU, and its description.

    Raises:
        ValueError: a missing or broken file, or weights that do not fit the description.
    """
    path = Path(folder) / DESCRIPTION_FILE
    found = read_description(path)
    kwargs = found["kwargs"] | {"pretrained": False}
    return rebuild(path, lambda: create_model(found["name"], **kwargs)), found


def rebuild(path: Path, build: Callable[[], M]) -> M:
    """Build the network of a description and load the weights beside it, in eval mode.

    Args:
        path: of the description.
        build: of the network; called on the meta device first, for one that is much larger than its weights
            may not fit into memory.

    Raises:
        ValueError: one line with the file that is wrong.
    """
    weights = path.with_name(WEIGHTS_FILE)
    held = size_of(weights)
    try:
        try:
            with torch.device("meta"):
                planned = sum(value.nbytes for value in build().state_dict().values())
        except (NotImplementedError, RuntimeError) as error:
            if "meta" not in str(error):
                raise
            planned = 0  # some of timm's look at values while they are built
        if planned > 8 * held + 2**20:  # the weights may be of 16 bits, and position tables of a small grid
            raise ValueError(f"describes a network of {planned:,} bytes, and {WEIGHTS_FILE} has {held:,}")
        model = build()
    except (
        TypeError,
        ValueError,
        KeyError,
        RuntimeError,
        ArithmeticError,
        AssertionError,
        AttributeError,
    ) as e:
        raise ValueError(f"{path}: {text_of(e)}") from None
    load_weights(model, weights, strict=True)
    return model.eval()


def class_names(
    source: str | Path | Mapping[str, Tensor], ours: Sequence[str], layers: Sequence[str], before: int = 0
) -> ClassNames | None:
    """Return the names of the classes in weights that have them, beside a model's own.

    Args:
        source: the file of the weights, or weights that bring their names.
        ours: names in the model.
        layers: of the model, see `ClassNames`.
        before: rows that come first, see `ClassNames`.

    Returns:
        None where the weights come without names.
    """
    if isinstance(source, Mapping):
        theirs = source.classes if isinstance(source, NamedWeights) else None
        return None if theirs is None else ClassNames(theirs, list(ours), layers, before)
    try:
        theirs = read_object(Path(source).with_name(DESCRIPTION_FILE)).get("classes")
    except (OSError, ValueError):
        return None
    if not isinstance(theirs, list) or not theirs or not all(isinstance(name, str) for name in theirs):
        return None
    return ClassNames(theirs, list(ours), layers, before)
