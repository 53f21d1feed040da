"""Recipes and overrides to the configuration of a run, strictly.

Nothing here imports torch or lightning, and nothing opens data: a mistyped key costs milliseconds, not
minutes. A recipe is a YAML mapping of the same shape as `RunConfig` or, with `task: detect`,
`DetectionRunConfig`; `extends: other` names one parent recipe, whose mappings are merged key by key.
"""

import dataclasses
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from botvision.config.run import CONFIGS, AnyRunConfig
from botvision.config.schema import ConfigError, Text, build, nearest


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
        values = read_yaml(path)
        parent = values.pop("extends", None)
        merged = _merge(values, merged)
        if parent is None:
            break
        if not isinstance(parent, str):
            raise ConfigError(f"{path}: extends: expected one recipe's name, got {parent!r}")
        path = _find_recipe(parent, path.parent)
    merged["recipe"] = chain[0].stem
    return merged


def build_config(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> AnyRunConfig:
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
    task = str(nested.get("task", "classify"))
    if task not in CONFIGS:
        raise ConfigError(f"task: expected one of {', '.join(CONFIGS)}, got {task!r}")
    return build(CONFIGS[task], nested, "")


def load_config(path: Path) -> AnyRunConfig:
    """Reads the config.yaml of a run folder. Raises ConfigError like `build_config`, naming the file."""
    try:
        return build_config(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def resumed_config(
    folder: Path, overrides: Mapping[str, Any] | None = None, recipe: str | None = None
) -> AnyRunConfig:
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
    values = read_yaml(path)
    if recipe is not None and values.get("recipe") != recipe:
        raise ConfigError(
            f"{folder}: a run of the recipe {values.get('recipe')}, got {recipe}; "
            "leave the recipe out to resume"
        )
    return build_config(values, overrides)


def check_new_folder(folder: Path) -> None:
    """Refuse a folder for a new run that holds a run or anything else. Raises ConfigError."""
    if (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} already holds a run: resume it, or choose another folder")
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ConfigError(f"{folder}: expected a new or empty folder for the run")


def config_to_dict(config: AnyRunConfig) -> dict[str, Any]:
    """Returns the configuration as plain mappings, lists and scalars, every key present."""
    return _plain(dataclasses.asdict(config))


def with_absolute_paths(config: AnyRunConfig) -> AnyRunConfig:
    """Returns the configuration as a run folder has it, which stays usable from elsewhere."""
    paths = {"data.root": config.data.root, "model.weights": config.model.weights}
    return build_config(
        config_to_dict(config),
        {
            key: str(Path(path).expanduser().absolute())
            for key, path in paths.items()
            if path is not None and (key == "data.root" or Path(path).expanduser().exists())
        },
    )


def changed_keys(old: AnyRunConfig, new: AnyRunConfig) -> list[str]:
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
            if not isinstance(key_node, yaml.ScalarNode):
                raise ConfigError(
                    f"line {key_node.start_mark.line + 1}: expected a name as key, got a list or mapping"
                )
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


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping. Raises ConfigError, naming the file: none, or a key given twice."""
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
