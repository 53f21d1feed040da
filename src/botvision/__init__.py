"""Bottleneck Transformers (BoTNet) for visual recognition.

After importing this package timm has its models: `timm.create_model("botnet50")` works. What it offers itself
is imported when it is first used, so that the import takes milliseconds.
"""

import importlib

from botvision.registration import register_with_timm

TYPE_CHECKING = False  # typing's: it takes longer to import than all else here
if TYPE_CHECKING:
    from botvision.attention.layer import MHSA2d
    from botvision.backbones import cost
    from botvision.backbones.accelerate import accelerate, restore
    from botvision.backbones.fuse import fold_batch_norm
    from botvision.backbones.loading import load_weights
    from botvision.backbones.models import BoTNet, create_model, list_models
    from botvision.backbones.surgery import Surgery, from_resnet
    from botvision.backbones.timm_attention import from_timm_botnet
    from botvision.backbones.weights import load_model, save_model
    from botvision.detection.mask_rcnn import faster_rcnn, mask_rcnn
    from botvision.detection.weights import load_backbone, load_detector, save_detector, warm_start
    from botvision.inference.attention_maps import attention_maps
    from botvision.inference.load import load

__version__ = "0.1.0"

_HOME = {
    "MHSA2d": "botvision.attention.layer",
    "accelerate": "botvision.backbones.accelerate",
    "restore": "botvision.backbones.accelerate",
    "cost": "botvision.backbones.cost",
    "Surgery": "botvision.backbones.surgery",
    "fold_batch_norm": "botvision.backbones.fuse",
    "from_resnet": "botvision.backbones.surgery",
    "BoTNet": "botvision.backbones.models",
    "create_model": "botvision.backbones.models",
    "list_models": "botvision.backbones.models",
    "from_timm_botnet": "botvision.backbones.timm_attention",
    "load_model": "botvision.backbones.weights",
    "load_weights": "botvision.backbones.loading",
    "save_model": "botvision.backbones.weights",
    "attention_maps": "botvision.inference.attention_maps",
    "load": "botvision.inference.load",
    "faster_rcnn": "botvision.detection.mask_rcnn",
    "load_backbone": "botvision.detection.weights",
    "load_detector": "botvision.detection.weights",
    "mask_rcnn": "botvision.detection.mask_rcnn",
    "save_detector": "botvision.detection.weights",
    "warm_start": "botvision.detection.weights",
}

__all__ = [
    "BoTNet",
    "MHSA2d",
    "Surgery",
    "accelerate",
    "attention_maps",
    "cost",
    "create_model",
    "faster_rcnn",
    "fold_batch_norm",
    "from_resnet",
    "from_timm_botnet",
    "list_models",
    "load",
    "load_backbone",
    "load_detector",
    "load_model",
    "load_weights",
    "mask_rcnn",
    "restore",
    "save_detector",
    "save_model",
    "warm_start",
]


def __getattr__(name: str) -> object:
    """Import what is asked for from where it lives (PEP 562)."""
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = importlib.import_module(_HOME[name])
    value = home if name == "cost" else getattr(home, name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])


register_with_timm()
