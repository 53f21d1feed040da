"""What a run is: frozen dataclasses, filled strictly from a recipe and from overrides.

Nothing here imports torch or lightning, and nothing opens data: a mistyped key costs milliseconds, not
minutes. A recipe is a YAML mapping of the same shape as `RunConfig`; `extends: other` names one parent
recipe, whose mappings are merged key by key.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any, Literal

import yaml

from botvision.data.config import DataConfig
from botvision.training.schema import ConfigError, Text, build, nearest, require


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """Which network.

    Attributes:
        name: any name of `botvision.list_models()` or of timm.
        args: keyword arguments of that model, e.g. `{position: absolute, c5_stride: 1}`. The number of
            classes comes from the data, and the size of the position tables from `data.image_size` unless
            given here.
        weights: a run folder or a .safetensors file to start from, or the name of a ResNet whose weights timm
            fetches (resnet50); what fits by name and shape is taken.
    """

    name: str
    args: dict[str, Any] = dataclasses.field(default_factory=dict)
    weights: str | None = None

    def __post_init__(self) -> None:
        if "num_classes" in self.args:
            raise ConfigError(
                "model.args.num_classes: leave it out, the number of classes comes from the data"
            )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """How the weights move.

    Attributes:
        name: sgd (momentum), adamw or lamb.
        lr: peak learning rate; for a batch of `lr_batch` images where that is given, scaled linearly to the
            real batch (batch_size x accumulate), else taken as it is.
        schedule: cosine (to `min_lr` at the last step) or constant, both after a linear warm-up.
        warmup_epochs: length of the warm-up in epochs; fractions are allowed.
        clip_norm: largest norm of the gradient; 0 switches clipping off.
    """

    name: Literal["sgd", "adamw", "lamb"] = "sgd"
    lr: float = 0.1
    lr_batch: int | None = None
    momentum: float = 0.9
    nesterov: bool = True
    betas: tuple[float, float] = (0.9, 0.999)
    eps: float = 1e-8
    weight_decay: float = 5e-4
    schedule: Literal["cosine", "constant"] = "cosine"
    warmup_epochs: float = 0.0
    min_lr: float = 0.0
    clip_norm: float = 0.0

    def __post_init__(self) -> None:
        require(self.lr > 0, "optim.lr", self.lr, "a number above 0")
        require(
            self.lr_batch is None or self.lr_batch > 0, "optim.lr_batch", self.lr_batch, "a number above 0"
        )
        require(0 <= self.momentum < 1, "optim.momentum", self.momentum, "0 <= momentum < 1")
        require(not self.nesterov or self.momentum > 0 or self.name != "sgd", "optim.nesterov", True,
                 "false where optim.momentum is 0")  # fmt: skip
        require(
            all(0 <= beta < 1 for beta in self.betas), "optim.betas", self.betas, "two numbers, 0 <= beta < 1"
        )
        require(self.eps > 0, "optim.eps", self.eps, "a number above 0")
        require(self.weight_decay >= 0, "optim.weight_decay", self.weight_decay, "0 or more")
        require(self.warmup_epochs >= 0, "optim.warmup_epochs", self.warmup_epochs, "0 or more")
        require(self.min_lr >= 0, "optim.min_lr", self.min_lr, "0 or more")
        require(self.clip_norm >= 0, "optim.clip_norm", self.clip_norm, "0 (off) or more")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """How long, in what portions, in what precision.

    Attributes:
        batch_size: images a forward pass; `accumulate` of them make one optimiser step.
        ema_decay: decay a step of the averaged copy of the weights that is then evaluated and kept; 0
            switches it off. In the first steps t the decay is (1 + t) / (10 + t) where that is smaller.
        seed: of weights, order, augmentation and dropout; below 2**32.
        keep: which weights become the run's result: those of the "last" epoch, or of the "best" by val top-1.
            The best of many epochs on the images it is then measured on flatters; the last does not.
        early_stop: epochs without a better val top-1 after which the run ends; 0 means never.
        checkpoint_every: optimiser steps between checkpoints inside an epoch; 0 means at the ends of epochs
            only.
        log_every: optimiser steps between two rows of steps.csv.
        max_steps: end after that many optimiser steps (for trials); none means all epochs.
    """

    epochs: int = 10
    batch_size: int = 128
    accumulate: int = 1
    seed: int = 0
    precision: Literal["32-true", "bf16-mixed"] = "32-true"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    label_smoothing: float = 0.0
    ema_decay: float = 0.0
    keep: Literal["best", "last"] = "last"
    early_stop: int = 0
    channels_last: bool = False
    checkpoint_every: int = 0
    log_every: int = 10
    max_steps: int | None = None

    def __post_init__(self) -> None:
        for key in ("epochs", "batch_size", "accumulate", "log_every"):
            require(getattr(self, key) > 0, f"train.{key}", getattr(self, key), "a number above 0")
        require(0 <= self.seed < 2**32, "train.seed", self.seed, "0 <= seed < 2**32")
        for key in ("early_stop", "checkpoint_every"):
            require(getattr(self, key) >= 0, f"train.{key}", getattr(self, key), "0 or more")
        for key in ("label_smoothing", "ema_decay"):
            require(0 <= getattr(self, key) < 1, f"train.{key}", getattr(self, key), f"0 <= {key} < 1")
        require(
            self.max_steps is None or self.max_steps > 0,
            "train.max_steps",
            self.max_steps,
            "a number above 0",
        )


@dataclasses.dataclass(frozen=True)
class RunConfig:
    """The effective configuration of a run, as written to its config.yaml."""

    model: ModelConfig
    data: DataConfig
    optim: OptimConfig = dataclasses.field(default_factory=OptimConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    task: Literal["classify"] = "classify"
    recipe: str = ""


def recipe_names() -> list[str]:
    """Returns the names of the recipes that come with botvision, sorted."""
    folder = resources.files("botvision") / "recipes"
    return sorted(entry.name[: -len(".yaml")] for entry in folder.iterdir() if entry.name.endswith(".yaml"))


def load_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """Reads a recipe and its parents.

    Args:
        name_or_path: a name of `recipe_names()`, or the path of a YAML file.

    Returns:
        The merged mapping, without `extends` and with `recipe` set to the recipe's name.

    Raises:
        ConfigError: no such recipe, not a YAML mapping, a key given twice, or recipes that extend each other.
    """
    chain: list[Path] = []
    merged: dict[str, Any] = {}
    path = _find_recipe(str(name_or_path), None)
    while True:
        if path in chain:
            raise ConfigError(
                f"{chain[0]}: recipes extend each other: {' -> '.join(p.stem for p in [*chain, path])}"
            )
        chain.append(path)
        values = _read_yaml(path)
        parent = values.pop("extends", None)
        merged = _merge(values, merged)
        if parent is None:
            break
        if not isinstance(parent, str):
            raise ConfigError(f"{path}: extends: expected one recipe's name, got {parent!r}")
        path = _find_recipe(parent, path.parent)
    merged["recipe"] = chain[0].stem
    return merged


def build_config(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> RunConfig:
    """Turns a recipe and overrides into a configuration, and refuses whatever it does not know.

    Args:
        values: nested mapping as from `load_recipe`.
        overrides: dotted key to value, e.g. `{"train.epochs": 3}`; a string is read as YAML would read it,
            except where the key holds text. Keys of parts that are free mappings (`model.args`) may be new.

    Raises:
        ConfigError: unknown key (the message proposes the nearest one), wrong type, impossible value,
            missing key.
    """
    nested = _merge({}, dict(values))
    for dotted, value in (overrides or {}).items():
        _set_dotted(nested, dotted, Text(value) if isinstance(value, str) else value)
    return build(RunConfig, nested, "")


def load_config(path: Path) -> RunConfig:
    """Reads the config.yaml of a run folder. Raises ConfigError like `build_config`, naming the file."""
    try:
        return build_config(_read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def resumed_config(
    folder: Path, overrides: Mapping[str, Any] | None = None, recipe: str | None = None
) -> RunConfig:
    """Returns the configuration with which a run goes on: its own, with overrides on top.

    Args:
        folder: the run folder.
        overrides: as for `build_config`.
        recipe: name of the recipe asked for; it must be the run's, and its values are not read again.

    Raises:
        ConfigError: no run there, a run of another recipe, or whatever `build_config` refuses.
    """
    path = folder / "config.yaml"
    if not path.is_file():
        raise ConfigError(f"{folder}: no run to resume, there is no config.yaml")
    values = _read_yaml(path)
    if recipe is not None and values.get("recipe") != recipe:
        raise ConfigError(
            f"{folder}: a run of the recipe {values.get('recipe')}, got {recipe}; "
            "leave the recipe out to resume"
        )
    return build_config(values, overrides)


def config_to_dict(config: RunConfig) -> dict[str, Any]:
    """Returns the configuration as plain mappings, lists and scalars, every key present."""
    return _plain(dataclasses.asdict(config))


def changed_keys(old: RunConfig, new: RunConfig) -> list[str]:
    """Returns the dotted keys whose values differ, in the order of the configuration."""
    before, after = dict(_leaves(config_to_dict(old), "")), dict(_leaves(config_to_dict(new), ""))
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def value_at(values: Any, dotted: str) -> object:  # noqa: ANN401
    """Returns the value of a dotted key in nested mappings; None where there is none."""
    for part in dotted.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


class _UniqueKeyLoader(yaml.SafeLoader):
    """YAML's own rule, which PyYAML does not enforce: a key given twice is an error, not a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key_node, _ in node.value:
            if key_node.value in seen:
                raise ConfigError(
                    f"line {key_node.start_mark.line + 1}: key {key_node.value!r} is given twice"
                )
            seen.add(key_node.value)
        return super().construct_mapping(node, deep)


def _find_recipe(name: str, beside: Path | None) -> Path:
    is_path = name.endswith((".yaml", ".yml"))
    folders = [Path()] if beside is None else [beside]
    if not is_path:
        folders.append(Path(str(resources.files("botvision"))) / "recipes")
        folders = folders[1:] if beside is None else folders
    for folder in folders:
        path = (folder / (name if is_path else f"{name}.yaml")).resolve()
        if path.is_file():
            return path
    if is_path:
        raise ConfigError(f"{name}: no such recipe file")
    raise ConfigError(f"no recipe is called {name!r}{nearest(name, recipe_names())}")


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        values = yaml.load(path.read_text(encoding="utf-8"), _UniqueKeyLoader)  # a SafeLoader
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as YAML: {' '.join(str(error).split())}") from None
    if not isinstance(values, dict):
        raise ConfigError(f"{path}: expected a mapping of keys to values, got {type(values).__name__}")
    return values


def _merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    merged = {key: _merge(value, {}) if isinstance(value, Mapping) else value for key, value in base.items()}
    for key, value in over.items():
        inner = merged.get(key)
        if isinstance(value, Mapping):
            merged[key] = _merge(inner if isinstance(inner, Mapping) else {}, value)
        else:
            merged[key] = value
    return merged


def _set_dotted(nested: dict[str, Any], dotted: str, value: object) -> None:
    *parents, leaf = dotted.split(".")
    for depth, part in enumerate(parents):
        inner = nested.setdefault(part, {})
        if not isinstance(inner, dict):
            raise ConfigError(f"{dotted}: {'.'.join(parents[: depth + 1])} holds no keys of its own")
        nested = inner
    nested[leaf] = value


def _plain(value: object) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, list | tuple) else value


def _leaves(values: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
