"""The table of models, one row each. It imports neither torch nor timm: a wrong name costs milliseconds."""

import dataclasses
import difflib
import functools
import importlib.util
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

NANO = {"channels": (8, 16, 32, 64), "stem_width": 8, "stem_type": "deep"}
TINY = {"channels": (16, 32, 64, 128), "stem_width": 16, "stem_type": "deep"}
SMALL = {"channels": (32, 64, 128, 256), "stem_width": 16, "stem_type": "deep"}


@dataclasses.dataclass(frozen=True)
class Variant:
    """One row of the table.

    Attributes:
        layers: numbers of blocks in c2, c3, c4, c5.
        c5_stride: stride of c5; 1 in the S1 family.
        img_size: side in pixels at which the paper (or the recipe) uses it; sizes the position tables.
        se: squeeze-excite with ratio 1/16: "none", "conv" (convolution blocks, the paper's text) or "all"
            (every block, the parameter counts of the paper's table).
        act: activation.
        trunk: further arguments of timm's ResNet.
        attention: False for a plain ResNet.
        baseline: the plain ResNet it is compared with.
    """

    layers: tuple[int, int, int, int]
    c5_stride: int = 2
    img_size: int = 224
    se: str = "none"
    act: str = "relu"
    trunk: dict[str, Any] = dataclasses.field(default_factory=dict)
    attention: bool = True
    baseline: str | None = None


VARIANTS: dict[str, Variant] = {
    "botnet50": Variant((3, 4, 6, 3), baseline="resnet50"),
    "botnet101": Variant((3, 4, 23, 3), baseline="resnet101"),
    "botnet152": Variant((3, 8, 36, 3), baseline="resnet152"),
    "botnet200": Variant((3, 24, 36, 3)),
    "botnet_s1_50": Variant((3, 4, 6, 3), 1, baseline="resnet50"),
    "botnet_s1_59": Variant((3, 4, 6, 6), 1),
    "botnet_s1_77": Variant((3, 4, 6, 12), 1),
    "botnet_s1_110": Variant((3, 4, 23, 6), 1),
    "botnet_s1_128": Variant((3, 4, 23, 12), 1),
    "botnet_t3": Variant((3, 4, 6, 6), 1, 224, "conv", "silu"),
    "botnet_t4": Variant((3, 4, 23, 6), 1, 224, "conv", "silu"),
    "botnet_t5": Variant((3, 4, 23, 12), 1, 256, "conv", "silu"),
    "botnet_t6": Variant((3, 4, 6, 12), 1, 320, "conv", "silu"),
    "botnet_t7": Variant((3, 4, 23, 12), 1, 384, "conv", "silu"),
    # Not from the paper: train on a CPU in minutes, on 32x32 (CIFAR stem) or 64x64 images.
    "botnet14_nano": Variant((1, 1, 1, 1), 2, 64, trunk=NANO, baseline="resnet14_nano"),
    "botnet14_tiny": Variant((1, 1, 1, 1), 2, 64, trunk=TINY, baseline="resnet14_tiny"),
    "botnet26_tiny": Variant((2, 2, 2, 2), 2, 64, trunk=TINY, baseline="resnet26_tiny"),
    "botnet38_tiny": Variant((3, 3, 3, 3), 2, 64, trunk=TINY, baseline="resnet38_tiny"),
    "botnet26_small": Variant((2, 2, 2, 2), 2, 64, trunk=SMALL, baseline="resnet26_small"),
    "botnet_s1_14_nano": Variant((1, 1, 1, 1), 1, 64, trunk=NANO, baseline="resnet14_nano"),
    "botnet_s1_14_tiny": Variant((1, 1, 1, 1), 1, 64, trunk=TINY, baseline="resnet14_tiny"),
    "botnet_s1_26_small": Variant((2, 2, 2, 2), 1, 64, trunk=SMALL, baseline="resnet26_small"),
    "resnet14_nano": Variant((1, 1, 1, 1), 2, 64, trunk=NANO, attention=False),
    "resnet14_tiny": Variant((1, 1, 1, 1), 2, 64, trunk=TINY, attention=False),
    "resnet26_tiny": Variant((2, 2, 2, 2), 2, 64, trunk=TINY, attention=False),
    "resnet38_tiny": Variant((3, 3, 3, 3), 2, 64, trunk=TINY, attention=False),
    "resnet26_small": Variant((2, 2, 2, 2), 2, 64, trunk=SMALL, attention=False),
}


def unknown_model(name: str, others: Iterable[str]) -> ValueError:
    """Return the error that names the closest of the table's models and of others."""
    close = difflib.get_close_matches(name, sorted({*VARIANTS, *others}), n=4)
    hint = f"did you mean {', '.join(close)}?" if close else f"there are {', '.join(VARIANTS)} and timm's"
    return ValueError(f"unknown model {name!r}; {hint}")


# torchvision's detectors whose weights a detector of ours can start from: those of a ResNet-50.
DETECTORS = (
    "maskrcnn_resnet50_fpn_v2",
    "maskrcnn_resnet50_fpn",
    "fasterrcnn_resnet50_fpn_v2",
    "fasterrcnn_resnet50_fpn",
)
AUTO, HUB = "auto", "hf-hub:"
FILE_SUFFIXES = (".safetensors", ".pth", ".pt", ".bin", ".tar")


def repository(name: str) -> str:
    """Return OWNER/NAME of a repository on the Hugging Face Hub, without the prefix "hf-hub:".

    Raises:
        ValueError: it is not of that form.
    """
    repo = name.removeprefix(HUB)
    if re.fullmatch(r"[\w.-]+/[\w.-]+", repo) is None or ".." in repo or "--" in repo:
        raise ValueError(f"{name}: expected OWNER/NAME on the Hugging Face Hub, such as ada/birds")
    return repo


def weights_for(name: str) -> str | None:
    """Return whose weights of timm's a network starts from: its own, a BoTNet of ours from its ResNet's."""
    row = VARIANTS.get(name)
    if row is None:
        return name
    return None if row.baseline in VARIANTS else row.baseline


def no_weights_for(name: str) -> str:
    """Return a line on a network of ours that no weights are published for."""
    having = ", ".join(each for each in VARIANTS if weights_for(each) is not None)
    return f"there are no pretrained weights for {name}, but for {having}"


def check_weights(source: str, name: str) -> None:
    """Refuse weights that are neither a file nor known by name; timm's source is read as text.

    Args:
        source: `model.weights`: a path, "auto", "hf-hub:OWNER/NAME", or a name of torchvision's or timm's.
        name: of the network.

    Raises:
        ValueError: one line with the closest names.
    """
    if source == AUTO:
        if weights_for(name) is None:
            raise ValueError(f"{no_weights_for(name)}; --model.weights none starts from nothing")
    elif source.startswith(HUB):
        repository(source.partition("@")[0])
    elif source not in DETECTORS and not Path(source).expanduser().exists():
        _check_timm_weights(source)


def _check_timm_weights(source: str) -> None:
    if source in VARIANTS:
        instead = weights_for(source)
        which = f"{instead}, or auto, has it start from its ResNet's" if instead else no_weights_for(source)
        raise ValueError(f"there are no weights of {source} itself; {which}")
    text, (base, _, tag) = _timm_source(), source.partition(".")
    if f"'{source}'" not in text and (Path(source).name != source or Path(source).suffix in FILE_SUFFIXES):
        raise ValueError(f"{source}: no such file or folder")
    if tag in text and any(form in text for form in (f"def {base}(", f"'{base}'", f'"{base}"', f"'{base}.")):
        return  # whether timm has weights of it is seen when they are fetched
    weights = re.findall(r"""^ +['"](\w+\.\w+)['"]: _?\w*cfg""", text, re.MULTILINE)
    known = {AUTO, *DETECTORS, *weights, *(each.split(".")[0] for each in weights)}
    close = difflib.get_close_matches(source, sorted(known), n=4)
    rest = f"expected a file, a run folder, {HUB}OWNER/NAME, or a name of timm's or torchvision's"
    raise ValueError(f"unknown {source!r}; " + (f"did you mean {', '.join(close)}?" if close else rest))


# Arguments of networks, ours and timm's, that describe what is built. No other is passed on from a file:
# timm also takes some that name files to read, and unpickle, or places to fetch from.
ARCHITECTURE = {
    "img_size", "heads", "position", "convention", "c5_blocks", "c4_blocks", "c5_stride", "attn_drop",
    "key_init", "kernel", "shortcut_act", "se", "stem", "num_classes", "in_chans", "features_only",
    "out_indices", "output_stride", "global_pool", "layers", "cardinality", "base_width", "stem_width",
    "stem_type", "stem_size", "stem_kernel_size", "replace_stem_pool", "block_reduce_first",
    "down_kernel_size", "avg_down", "channels", "act_layer", "norm_layer", "aa_layer", "se_layer",
    "attn_layer", "block_args", "drop_rate", "drop_path_rate", "drop_block_rate", "attn_drop_rate",
    "proj_drop_rate", "pos_drop_rate", "patch_drop_rate", "zero_init_last", "patch_size", "embed_dim",
    "depth", "depths", "dims", "num_heads", "head_dim", "window_size", "mlp_ratio", "qkv_bias",
    "qk_norm", "proj_bias", "init_values", "class_token", "pos_embed", "no_embed_class", "reg_tokens",
    "pre_norm", "final_norm", "fc_norm", "dynamic_img_size", "dynamic_img_pad", "strict_img_size",
    "always_partition", "weight_init", "kernel_sizes", "ls_init_value", "head_init_scale",
    "head_norm_first", "head_hidden_size", "conv_mlp", "conv_bias", "use_grn", "norm_eps",
    "num_features", "fix_stem", "pad_type", "width_factor", "bottle_ratio", "group_size", "widths",
    "channel_multiplier", "depth_multiplier", "growth_rate",
}  # fmt: skip
LARGEST_NUMBER, MOST_LAYERS = 2**20, 1000  # of a width or size, and of a depth
DEPTHS = ("layers", "depth", "depths")


def check_arguments(given: Mapping[str, object], where: str = "") -> None:
    """Refuse arguments of a network that do not describe its architecture, or not in plain values.

    Args:
        given: from a file or a command line.
        where: what stands before their names in the error.

    Raises:
        ValueError: one line with the first that cannot be passed on.
    """
    for name, value in given.items():
        if name not in ARCHITECTURE and not (name == "pretrained" and isinstance(value, bool)):
            close = difflib.get_close_matches(name, sorted(ARCHITECTURE), n=1)
            hint = f"; did you mean {close[0]!r}?" if close else ""
            raise ValueError(f"{where}{name}: no argument that describes a network's architecture{hint}")
        most = MOST_LAYERS if name in DEPTHS else LARGEST_NUMBER
        if not _is_plain(value, most):
            raise ValueError(
                f"{where}{name}: expected numbers up to {most:,}, names, true, false, null, or lists or "
                f"mappings of these, got {str(value)[:60]}"
            )


def _is_plain(value: object, most: int) -> bool:
    if isinstance(value, Mapping):
        return all(isinstance(name, str) and _is_plain(part, most) for name, part in value.items())
    if isinstance(value, list | tuple):
        return all(_is_plain(part, most) for part in value)
    if isinstance(value, int | float):
        return -most <= value <= most  # which NaN is not
    return value is None or isinstance(value, str)


def check_name(name: str) -> None:
    """Refuse a name that is neither in the table nor anywhere in timm's source, which is read as text.

    Raises:
        ValueError: one line with the closest names.
    """
    base = name.split(".")[0]
    text = "" if base in VARIANTS else _timm_source()
    if text and not any(form in text for form in (f"def {base}(", f"'{base}'", f'"{base}"')):
        raise unknown_model(name, re.findall(r"^@register_model\ndef (\w+)", text, re.MULTILINE))


@functools.cache
def _timm_source() -> str:
    spec = importlib.util.find_spec("timm")
    folders = [] if spec is None else spec.submodule_search_locations or []
    files = [file for folder in folders for file in Path(folder).glob("models/*.py")]
    return "\n".join(file.read_text("utf-8") for file in files)
