"""Detectors in and out: warm starts of the backbone with a report, folders that rebuild a detector."""

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from botvision.backbones.classes import ClassNames
from botvision.backbones.loading import LoadReport, load_weights, replaced_convolutions
from botvision.backbones.pretrained import is_name
from botvision.backbones.stored import read_description, read_weights
from botvision.backbones.timm_attention import in_our_names, our_name
from botvision.backbones.warm_start import WarmStart, chosen_start
from botvision.backbones.weights import (
    DESCRIPTION_FILE,
    WEIGHTS_FILE,
    class_names,
    rebuild,
    save_model,
)
from botvision.config.detector import DetectorOptions
from botvision.config.schema import build
from botvision.detection.mask_rcnn import FasterRCNN, mask_rcnn
from botvision.detection.norms import after_attention
from botvision.detection.pretrained import fetch

TASK = "detect"
_BODY = "backbone.body"
_PARTS = (f"{_BODY}.", "backbone.fpn.", "rpn.", "roi_heads.")  # of a detector's names
_OF_BATCH_NORM = ("num_batches_tracked", "running_mean", "running_var")
_OF_CLASSES = tuple(
    f"roi_heads.{name}"
    for name in ("box_predictor.cls_score", "box_predictor.bbox_pred", "mask_predictor.mask_fcn_logits")
)


def warm_start(
    detector: nn.Module,
    source: str | Path | Mapping[str, Tensor],
    how: WarmStart | None = None,
    images: Iterable[Tensor] | None = None,
    classes: Sequence[str] | None = None,
) -> LoadReport:
    """Load what fits: of a detector's weights all parts, of a classifier's the backbone.

    A detector of ours or of torchvision gives backbone, pyramid and heads, as far as the options of the
    detector are the same; the report says which others take more of it. The layers that know the classes (box
    and mask predictors) come with it class by class where both sides' names are known, else if the number of
    classes is the same; they are reported as mismatched and stay new if it is not, or no class is the same.
    All else is as `load_backbone` has it.

    Args:
        detector: made by `mask_rcnn`; changed in place.
        source: safetensors file, folder of a run of ours or its model folder, PyTorch file of a state dict,
            or a state dict, with names as timm's or torchvision's ResNet or detector has them; or a name:
            of a detector of torchvision's that was trained on COCO ("maskrcnn_resnet50_fpn_v2"), of a network
            that timm has weights of ("resnet50"), or "hf-hub:OWNER/NAME".
        how: how attention begins where the source has a convolution: "fit", "taps", "zero" or "new", see
            `botvision.load_weights`; None for "fit" with images, else "taps". With "zero" and "new" the norm
            behind it stays new, too, and is reported as missing: what the source has there is of the
            convolution.
        images: normalised batches (B, 3, H, W), for "fit".
        classes: names of the detector's, of label 1, 2, ...; None: they are what they are in the source.

    Returns:
        Names of the whole detector for a detector, of the backbone for a classifier.

    Raises:
        ValueError: an unreadable source, one in which nothing fits, or one without the attention of a stage
            that is frozen.
    """
    how = chosen_start(how, images)
    where = "the weights" if isinstance(source, Mapping) else str(source)
    source = fetch(source) if is_name(source) else source
    stored = _tensors(source)
    body = detector.get_submodule(_BODY)
    if not any(name.startswith(_PARTS) for name in stored):
        return _load(body, stored, where, "backbone", how, images)
    own = set(body.state_dict())
    named = {}
    for name, value in stored.items():
        inner = name.removeprefix(f"{_BODY}.")
        named[name if inner == name else f"{_BODY}.{_name_in(own, inner)}"] = value
    names = None
    if classes is not None:
        of = source if isinstance(source, Mapping) else _file_of(Path(source))
        names = class_names(of, classes, _OF_CLASSES, before=1)
    report = _load(detector, named, where, "detector", how, images, names)
    return dataclasses.replace(report, advice=_advice(detector, named))


def load_backbone(
    detector: nn.Module, source: str | Path | Mapping[str, Tensor], how: WarmStart = "taps"
) -> LoadReport:
    """Load what fits of a classifier's weights, or of a detector's backbone alone, into the backbone.

    Frozen and group norms take over scale and shift of batch norm, frozen ones its statistics too; what only
    batch norm has (statistics for group norm, counters) is no part of the report. A classifier's last layer
    is reported as unexpected. Where a trained source has a convolution and the detector attention, the
    attention begins close to the convolution.

    Args:
        detector: made by `mask_rcnn`; changed in place.
        source: as for `warm_start`, which takes a detector's pyramid and heads too.
        how: "taps", "zero" or "new", as for `warm_start`.

    Raises:
        ValueError: as for `warm_start`.
    """
    where = "the weights" if isinstance(source, Mapping) else str(source)
    stored = _tensors(fetch(source) if is_name(source) else source)
    inner = {n.removeprefix(f"{_BODY}."): v for n, v in stored.items() if n.startswith(f"{_BODY}.")}
    return _load(detector.get_submodule(_BODY), inner or stored, where, "backbone", how)


def save_detector(
    model: nn.Module,
    folder: str | Path,
    *,
    classes: Sequence[str],
    categories: Sequence[Mapping[str, Any]] | None = None,
    **extra: Any,  # noqa: ANN401
) -> None:
    """Write `model.safetensors` and `model.json`, from which `load_detector` rebuilds the detector.

    Args:
        model: made by `mask_rcnn` from a name, then trained (or a copy of it with averaged weights).
        folder: made if it is not there.
        classes: names, of label 1, 2, ...
        categories: {"id", "name"} of the data for each class; ids 1, 2, ... where not given.
        **extra: what else the JSON shall hold.

    Raises:
        ValueError: a detector on a network that was handed in, or another number of classes.
    """
    recipe: Any = getattr(model, "recipe", None)
    if recipe is None or recipe["name"] is None:
        raise ValueError("only a detector made by mask_rcnn from a backbone's name can be saved as a folder")
    if len(classes) != recipe["num_classes"] or len(categories or classes) != len(classes):
        raise ValueError(
            f"a detector of {recipe['num_classes']} classes cannot be saved with {len(classes)} class names"
            + (f" and {len(categories)} categories" if categories is not None else "")
        )
    rows = categories or [{"id": number, "name": name} for number, name in enumerate(classes, 1)]
    save_model(
        model,
        folder,
        recipe["name"],
        recipe["kwargs"],
        task=TASK,
        classes=list(classes),
        categories=[{"id": row["id"], "name": row["name"]} for row in rows],
        **{key: recipe[key] for key in ("detector", "image_size", "mean", "std")},
        **extra,
    )


def load_detector(folder: str | Path, **changes: Any) -> tuple[FasterRCNN, dict[str, Any]]:  # noqa: ANN401
    """Return the detector of a `save_detector` folder, in eval mode on the CPU, and its description.

    Args:
        folder: with `model.json` and `model.safetensors`.
        **changes: options that need no other weights, e.g. score_threshold, nms, detections.

    Raises:
        ValueError: a missing or broken file, another task's model, or weights that do not fit.
    """
    path = Path(folder) / DESCRIPTION_FILE
    found = read_description(path)
    if found.get("task") != TASK:
        raise ValueError(f"{path}: a model of task {found.get('task')!r}, expected {TASK!r}")
    missing = [key for key in ("classes", "image_size", "mean", "std", "detector") if key not in found]
    if missing:
        raise ValueError(f"{path}: lacks {missing[0]!r}, expected JSON that describes a detector")
    try:
        options = build(DetectorOptions, found["detector"], "detector.")
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    frame = found["image_size"]
    arguments: dict[str, Any] = {
        "backbone_args": {**found["kwargs"], "pretrained": False},
        "image_size": tuple(frame) if isinstance(frame, list) else frame,
        "mean": tuple(found["mean"]),
        "std": tuple(found["std"]),
        **changes,
    }
    make = partial(mask_rcnn, found["name"], len(found["classes"]), options, **arguments)
    return rebuild(path, make), found


def _tensors(source: str | Path | Mapping[str, Tensor]) -> dict[str, Tensor]:
    return dict(source) if isinstance(source, Mapping) else read_weights(_file_of(Path(source)))


def _advice(detector: nn.Module, stored: Mapping[str, Tensor]) -> str:
    """A line on the options of a detector into which more of another one's weights would fit."""
    made: Any = getattr(detector, "recipe", None)
    options = made["detector"] if made else {}
    wanted = {key: value for key, value in _options_of(stored).items() if options.get(key, value) != value}
    if options.get("norm") == "sync":
        wanted.pop("norm", None)
    if not options.get("masks"):
        wanted.pop("mask_convs", None)
    flags = " ".join(f"--model.detector.{key} {value}" for key, value in wanted.items())
    return f"more of it fits with {flags}" if flags else ""


def _options_of(stored: Mapping[str, Tensor]) -> dict[str, Any]:
    """What a detector's weights say of its options."""
    shape = {name: tuple(value.shape) for name, value in stored.items()}
    found: dict[str, Any] = {
        "neck": "fpn" if any(name.startswith("backbone.fpn.") for name in shape) else "c5"
    }
    light = "roi_heads.box_head.fc6.weight" in shape
    found["heads"] = "light" if light else "v2"
    if any(name.startswith("roi_heads.box_head.") and name.endswith("running_mean") for name in shape):
        found["norm"] = "batch"
    linear = [
        size for name, size in shape.items() if name.startswith("roi_heads.box_head.") and len(size) == 2
    ]
    if linear:
        found["box_channels"] = linear[0][0]
    if "backbone.fpn.layer_blocks.0.0.weight" in shape:
        found["channels"] = shape["backbone.fpn.layer_blocks.0.0.weight"][0]
    masks = [name for name in shape if re.fullmatch(r"roi_heads\.mask_head\.\d+\.0\.weight", name)]
    if masks:
        found["mask_convs"] = len(masks)
    return found


def _load(
    network: nn.Module,
    stored: dict[str, Tensor],
    where: str,
    role: str,
    how: WarmStart,
    images: Iterable[Tensor] | None = None,
    classes: ClassNames | None = None,
) -> LoadReport:
    own = set(network.state_dict())
    stored = dict(in_our_names(network, {_name_in(own, name): value for name, value in stored.items()}))
    begun = replaced_convolutions(network, stored) if how in ("fit", "taps") else {}
    stored = {n: v for n, v in stored.items() if n in own or n.rpartition(".")[2] not in _OF_BATCH_NORM}
    _drop_norms_of_new_attention(network, stored, where, begun)
    body: Any = network if role == "backbone" else network.get_submodule(_BODY)
    try:
        return load_weights(network, stored, warm_start=how, images=images, run=body, classes=classes)
    except ValueError as error:
        if "no tensor fits" not in str(error):
            raise
        raise ValueError(f"{where}: no tensor fits the {role} {type(network).__name__}") from None


def _file_of(path: Path) -> Path:
    """The weights in the folder of a run or model; a file itself."""
    places = [path / "model" / WEIGHTS_FILE, path / WEIGHTS_FILE]
    return next((place for place in places if place.is_file()), places[0]) if path.is_dir() else path


def _drop_norms_of_new_attention(
    network: nn.Module, stored: dict[str, Tensor], where: str, begun: Mapping[str, Tensor]
) -> None:
    """Leave out the norms behind attention that is neither among the stored nor in `begun`."""
    for norm, attention in after_attention(network).items():
        name = f"{attention}.attention.qkv.weight"
        weight = network.get_parameter(name)
        if name in stored and stored[name].shape == weight.shape:
            continue
        if not weight.requires_grad:
            raise ValueError(
                f"{where}: no weights for {attention}, which model.detector.frozen_stages freezes"
            )
        for tensor in [each for each in stored if each.startswith(f"{norm}.") and attention not in begun]:
            del stored[tensor]


def _name_in(own: set[str], name: str) -> str:
    """The name as timm's feature wrapper has it: `stages_0.x` or `model.stages.0.x` for `stages.0.x`."""
    forms = (name, name.replace(".", "_", 1), f"model.{name}")
    return next((form for form in forms if form in own or our_name(form) in own), name)
