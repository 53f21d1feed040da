"""Weights by name: of timm's networks, and of repositories on the Hugging Face Hub."""

import contextlib
import difflib
from pathlib import Path
from typing import TypeGuard

import timm
from torch import Tensor

from botvision.backbones.hub import download, quiet
from botvision.backbones.variants import FILE_SUFFIXES, HUB, weights_for
from botvision.io.errors import text_of

DESCRIPTION, WEIGHTS = "model.json", "model.safetensors"


def from_timm(name: str, in_chans: int = 3) -> dict[str, Tensor]:
    """Return the state dict of a network that timm has weights of; fetched once.

    Args:
        name: with or without a tag: "resnet50", "resnet50.a1_in1k".
        in_chans: channels of the images; timm adapts the first convolution.

    Raises:
        ValueError: one line: timm has no such weights, or they cannot be fetched.
    """
    check_pretrained(name)
    try:
        with quiet():
            return timm.create_model(name, pretrained=True, in_chans=in_chans).state_dict()
    except Exception as error:  # no network, no disk, ...: each has its own
        raise not_fetched(name, error) from None


def from_hub(repo: str) -> Path:
    """Return the local copy of a repository's weights; its description, if there is one, lies beside it.

    Args:
        repo: "hf-hub:OWNER/NAME" or "hf-hub:OWNER/NAME@REVISION". Never a pickle is read.

    Raises:
        ValueError: one line: no such file, or no connection.
    """
    weights = download(repo, WEIGHTS)
    with contextlib.suppress(ValueError):  # names of the classes are welcome, and not needed
        download(repo, DESCRIPTION)
    return weights


def fetch(name: str) -> Path | dict[str, Tensor]:
    """Return weights by a name of timm's or "hf-hub:OWNER/NAME". Raises ValueError, one line."""
    return from_hub(name) if name.startswith(HUB) else from_timm(name)


def is_name(source: object) -> TypeGuard[str]:
    """Return whether weights are given by a name, and not as a path or as tensors."""
    if not isinstance(source, str) or Path(source).exists():
        return False
    named = Path(source).name == source and Path(source).suffix not in FILE_SUFFIXES
    return named or source.startswith(HUB) or timm.is_model_pretrained(source)


def has_weights(name: str) -> bool:
    """Return whether timm has weights that a network starts from: its own, or those of a BoTNet's ResNet."""
    source = weights_for(name)
    return source is not None and timm.is_model_pretrained(source)


def check_pretrained(name: str) -> None:
    """Raise ValueError, one line, for a network that timm has no weights of."""
    if timm.is_model_pretrained(name):
        return
    others = timm.list_models(pretrained=True)
    close = [each for each in others if "botnet" in each] if "botnet" in name else []
    close = close or difflib.get_close_matches(name, others, n=3)
    raise ValueError(f"timm has no weights of {name}" + (f", but of {', '.join(close)}" if close else ""))


def not_fetched(name: str, error: Exception) -> ValueError:
    """Return the error that says what kept weights from being fetched.

    Its reason is the first cause: libraries wrap it in advice of their own.
    """
    first: BaseException = error
    while first.__cause__ is not None:
        first = first.__cause__
    return ValueError(f"the weights of {name} cannot be fetched ({text_of(first).rstrip('.')})")
