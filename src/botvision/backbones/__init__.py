"""Images to feature maps: ResNets with attention, their weights and their cost.

Importing this package registers every variant in timm.
"""

from botvision.backbones.block import AttentionConv2d
from botvision.backbones.cost import Cost, StageCost, StepTime, count, stage_table, step_time
from botvision.backbones.fuse import fold_batch_norm
from botvision.backbones.models import VARIANTS, BoTNet, Variant, create_model, list_models, set_stem
from botvision.backbones.surgery import Surgery, SurgeryReport, from_resnet
from botvision.backbones.weights import (
    LoadReport,
    from_timm_attention,
    from_timm_botnet,
    load_model,
    load_weights,
    save_model,
)

__all__ = [
    "VARIANTS",
    "AttentionConv2d",
    "BoTNet",
    "Cost",
    "LoadReport",
    "StageCost",
    "StepTime",
    "Surgery",
    "SurgeryReport",
    "Variant",
    "count",
    "create_model",
    "fold_batch_norm",
    "from_resnet",
    "from_timm_attention",
    "from_timm_botnet",
    "list_models",
    "load_model",
    "load_weights",
    "save_model",
    "set_stem",
    "stage_table",
    "step_time",
]
