"""Weights by name for a detector: torchvision's, trained on COCO, and whatever a backbone can start from."""

from pathlib import Path

import torch
from torch import Tensor, nn
from torchvision.models import WeightsEnum, get_model, get_model_weights

from botvision.backbones import pretrained
from botvision.backbones.classes import NamedWeights
from botvision.backbones.stored import check_finite
from botvision.backbones.variants import DETECTORS

_NO_CLASS = "N/A"  # COCO's numbers without a category
_OF_CLASSES = (
    "roi_heads.box_predictor.cls_score.",
    "roi_heads.box_predictor.bbox_pred.",
    "roi_heads.mask_predictor.mask_fcn_logits.",
)
_EPS = 1e-5  # of our batch norms


def fetch(name: str) -> Path | dict[str, Tensor]:
    """Return weights by the name of a detector of torchvision's, a network of timm's, or "hf-hub:OWNER/NAME".

    Raises:
        ValueError: one line: no such weights, or they cannot be fetched.
    """
    return from_torchvision(name) if name in DETECTORS else pretrained.fetch(name)


def from_torchvision(name: str) -> NamedWeights:
    """Return a detector's weights from torchvision's registry, fetched once, with the names of their classes.

    Of its 91 labels the 11 that stand for nothing are left out.

    Args:
        name: of `DETECTORS`.

    Raises:
        ValueError: one line: they cannot be fetched, or are not of this detector.
    """
    entry: WeightsEnum = get_model_weights(name)["DEFAULT"]
    try:
        stored = entry.get_state_dict(progress=True, check_hash=True, weights_only=True)
    except Exception as error:  # no network, no disk, ...: each has its own
        raise pretrained.not_fetched(name, error) from None
    with torch.device("meta"):
        theirs: nn.Module = get_model(name, weights=None, weights_backbone=None)
    try:
        theirs.load_state_dict(stored, assign=True)  # torchvision renames what older versions stored
    except RuntimeError as error:
        raise ValueError(
            f"{name}: other weights than torchvision's ({str(error).splitlines()[-1].strip()})"
        ) from None
    state = theirs.state_dict()
    if not name.endswith("_v2"):
        _give_epsilon(state)
    check_finite(state, name)
    labels = entry.meta["categories"]
    named = [label for label, category in enumerate(labels) if category != _NO_CLASS]
    for key, value in state.items():
        if key.startswith(_OF_CLASSES):
            state[key] = value.unflatten(0, (len(labels), -1))[named].flatten(0, 1)
    return NamedWeights(state, classes=[labels[label] for label in named[1:]])


def _give_epsilon(state: dict[str, Tensor]) -> None:
    """Scale norms that were trained without an epsilon, which torchvision sets to 0 for them; in place.

    Ours add one to the variance, the larger scale takes it back: exact also where the variance is tiny.
    """
    for key in [key for key in state if key.endswith(".running_var")]:
        scale, variance = key.replace("running_var", "weight"), state[key].double()
        state[scale] = (state[scale].double() * ((variance + _EPS) / variance).sqrt()).to(state[scale])
