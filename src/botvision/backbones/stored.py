"""Files of weights and their descriptions, as untrusted input: each fault is one line, and no code is run."""

import json
import pickle
import warnings
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor

from botvision.backbones.variants import FILE_SUFFIXES, check_arguments
from botvision.io.read import check_regular, read_object

_WRAPPERS = ("state_dict", "model", "model_state_dict")
LARGEST_SIDE = 8192  # pixels of a network's input


def _are_numbers(value: object, low: float, high: float) -> bool:
    """Whether a value is a number within these bounds, or a list of such numbers; NaN is not."""
    if isinstance(value, list):
        return len(value) > 0 and all(not isinstance(v, list) and _are_numbers(v, low, high) for v in value)
    return isinstance(value, int | float) and not isinstance(value, bool) and low <= value <= high


def _is_size(value: object) -> bool:
    sides = value if isinstance(value, list) and len(value) == 2 else [value]
    return value is None or all(
        isinstance(side, int) and _are_numbers(side, 1, LARGEST_SIDE) for side in sides
    )


def _are_categories(value: object) -> bool:
    rows = value if isinstance(value, list) else [None]
    return all(
        isinstance(row, dict) and isinstance(row.get("id"), int) and isinstance(row.get("name"), str)
        for row in rows
    )


# Key of a description -> what is expected, and whether a value is that.
DESCRIBED: dict[str, tuple[str, Callable[[Any], bool]]] = {
    "name": ("a model's name", lambda value: isinstance(value, str)),
    "kwargs": ("an object", lambda value: isinstance(value, dict)),
    "classes": (
        "a list of names",
        lambda v: isinstance(v, list) and len(v) > 0 and all(isinstance(name, str) for name in v),
    ),
    "categories": ("a list of objects with id and name", _are_categories),
    "image_size": (f"[height, width] of 1 to {LARGEST_SIDE} pixels", _is_size),
    "mean": ("a list of numbers", lambda v: isinstance(v, list) and _are_numbers(v, -1e6, 1e6)),
    "std": ("a list of numbers above 0", lambda v: isinstance(v, list) and _are_numbers(v, 1e-9, 1e6)),
    "crop": (
        "a number above 0 and at most 1",
        lambda v: not isinstance(v, list) and _are_numbers(v, 1e-3, 1),
    ),
    "task": ("classify or detect", lambda value: value in ("classify", "detect")),
    "at_places": ("true or false", lambda value: isinstance(value, bool)),
    "detector": ("an object", lambda value: isinstance(value, dict)),
}


def read_description(path: Path) -> dict[str, Any]:
    """Return what a model's JSON says; each value is of the kind that `save_model` writes.

    Raises:
        ValueError: one line with the file and the key that is wrong.
    """
    try:
        found = read_object(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
    for key in ("name", "kwargs"):
        if key not in found:
            raise ValueError(f"{path}: lacks {key!r}, expected JSON with 'name' and 'kwargs' of a model")
    for key, (expected, holds) in DESCRIBED.items():
        if key in found and not holds(found[key]):
            raise ValueError(f"{path}: {key}: expected {expected}, got {json.dumps(found[key])[:60]}")
    check_arguments(found["kwargs"], f"{path}: kwargs.")
    outputs, classes = found["kwargs"].get("num_classes"), found.get("classes")
    if outputs is not None and classes is not None and outputs != len(classes):
        raise ValueError(f"{path}: classes: {len(classes)} names, but kwargs.num_classes is {outputs}")
    return found


def read_weights(path: Path) -> dict[str, Tensor]:
    """Return the tensors of a safetensors file, or of a state dict of PyTorch's, by name.

    Raises:
        ValueError: one line that names a file which is none, or a tensor that is not finite.
    """
    if path.suffix in FILE_SUFFIXES[1:]:
        return _read_state_dict(path)
    size_of(path)
    try:
        found = load_file(path)
    except (OSError, SafetensorError, KeyError, ValueError, RuntimeError) as error:
        reason = getattr(error, "strerror", None) or "not a safetensors file, or a broken one"
        raise ValueError(f"{path}: cannot be read as weights ({reason})") from None
    check_finite(found, str(path))
    return found


def _read_state_dict(path: Path) -> dict[str, Tensor]:
    content = read_torch(path, "weights")
    for key in _WRAPPERS:
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(
        isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items()
    ):
        raise ValueError(f"{path}: cannot be read as weights (expected tensors by name)")
    check_finite(content, str(path))
    return {name.removeprefix("module."): value for name, value in content.items()}


def read_torch(path: Path, kind: str) -> Any:  # noqa: ANN401
    """Return what a file of torch's holds, on the CPU; code in it is never run.

    Args:
        path: a zip as torch writes it, whose checksums are compared, or the form before that.
        kind: what the file should be, for the error.

    Raises:
        ValueError: one line with the file, and what is wrong with it.
    """
    reason = "cut off, damaged, or something else" if size_of(path) else "the file is empty"
    try:
        if zipfile.is_zipfile(path):
            _check_parts(path)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        reason = error.strerror or reason
    except pickle.UnpicklingError as error:  # torch's own text tells how to load the file unsafely
        reason = "it holds other things than tensors" if "GLOBAL" in str(error) else reason
    except Exception as error:  # whatever torch meets in a broken file, the user needs the file's name
        reason = str(error) if isinstance(error, _DamagedError) else reason
    raise ValueError(f"{path}: cannot be read as {kind} ({reason})") from None


class _DamagedError(Exception):
    """What is wrong with a zip."""


def _check_parts(path: Path) -> None:
    """Compare the checksums that torch writes and does not look at. Raises _DamagedError."""
    with zipfile.ZipFile(path) as parts:
        rows = parts.infolist()
        packed = any(row.compress_type != zipfile.ZIP_STORED for row in rows)
        if packed or sum(row.file_size for row in rows) > path.stat().st_size:
            raise _DamagedError("its parts are packed, which torch does not do")
        damaged = parts.testzip()
        if damaged is not None:
            raise _DamagedError(f"damaged: the checksum of {damaged} does not fit")


def check_finite(tensors: Mapping[str, Tensor], where: str) -> None:
    """Raise ValueError, one line with the first name, for weights that are NaN or infinite."""
    bad = [name for name, value in tensors.items() if not _is_finite(value)]
    if bad:
        count = f"{len(bad)} tensor{'s' * (len(bad) > 1)} of {len(tensors)}"
        raise ValueError(f"{where}: weights that are not finite: NaN or infinity in {count}, first {bad[0]}")


def _is_finite(value: Tensor) -> bool:
    """Whether a tensor holds numbers, each its own, and none is NaN or infinite."""
    if value.is_meta or value.is_quantized or value.layout != torch.strided:
        return False
    if value.nbytes > value.untyped_storage().nbytes():  # a huge view of few values
        return False
    value = value.float() if value.element_size() == 1 else value  # torch has no isfinite of 8-bit floats
    return bool(value.isfinite().all())


def size_of(path: Path) -> int:
    """Bytes of a file of weights. Raises ValueError for one that is not there, or is no file."""
    try:
        return check_regular(path)
    except OSError as error:
        raise ValueError(f"{path}: cannot be read as weights ({error.strerror})") from None
