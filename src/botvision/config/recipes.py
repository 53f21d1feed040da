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

from botvision.config.run import CONFIGS, AnyRunConfig
from botvision.config.schema import ConfigError, Text, build, nearest
from botvision.io import yaml

OURS = Path(str(resources.files("botvision"))) / "recipes"
LOCK, BEING_TRAINED = "run.lock", "a run is being trained"  # the lock's file in a run folder, and its reason
# What a training that ended before config.yaml made its folder a run may have left.
BEFORE_A_RUN = (LOCK, "versions.json", "warm_start.txt")


def recipe_names() -> list[str]:
    """Return the names of the recipes that come with botvision, sorted."""
    return sorted(path.stem for path in OURS.glob("*.yaml"))


def recipe_promises() -> dict[str, str]:
    """Return the first line of comment of each recipe, by name."""
    found = {}
    for name in recipe_names():
        lines = (OURS / f"{name}.yaml").read_text(encoding="utf-8").splitlines()
        found[name] = next(
            (line.lstrip("# ") for line in lines if line.startswith("#") and line.strip("# ")), ""
        )
    return found


def load_recipe(name_or_path: str | Path) -> dict[str, Any]:
    """Read a recipe and its parents.

    Args:
        name_or_path: a name of `recipe_names()`, or the path of a YAML file.

    Returns:
        The merged mapping, without `extends` and with `recipe` set to the recipe's name.

    Raises:
        ConfigError: no such recipe, not a YAML mapping, a key given twice, or recipes that extend each other.
    """
    chain: list[Path] = []
    merged: dict[str, Any] = {}
    parent: object = str(name_or_path)
    while parent is not None:
        if not isinstance(parent, str):
            raise ConfigError(f"{chain[-1]}: extends: expected one recipe's name, got {parent!r}")
        path = _find_recipe(parent, chain[-1].parent if chain else None)
        if path in chain:
            names = " -> ".join(p.stem for p in [*chain, path])
            raise ConfigError(f"{chain[0]}: recipes extend each other: {names}")
        chain.append(path)
        values = read_yaml(path)
        parent = values.pop("extends", None)
        merged = _merge(values, merged)
    return {**merged, "recipe": chain[0].stem}


def build_config(values: Mapping[str, Any], overrides: Mapping[str, Any] | None = None) -> AnyRunConfig:
    """Turn a recipe and overrides into a configuration, and refuse whatever is not known.

    Args:
        values: nested mapping as from `load_recipe`.
        overrides: dotted key to value, e.g. `{"train.epochs": 3}`; a string is read as YAML would read it,
            except where the key holds text. Keys of parts that are free mappings (`model.args`) may be new.

    Raises:
        ConfigError: unknown key (the message proposes the nearest one), wrong type, impossible value,
            missing key.
    """
    nested = _merge({}, values)
    for dotted, value in (overrides or {}).items():
        _set_dotted(nested, dotted, Text(value) if isinstance(value, str) else value)
    task = str(nested.get("task", "classify"))
    if task not in CONFIGS:
        raise ConfigError(f"task: expected one of {', '.join(CONFIGS)}, got {task!r}")
    return build(CONFIGS[task], nested, "")


def load_config(path: Path) -> AnyRunConfig:
    """Read the config.yaml of a run folder. Raises ConfigError like `build_config`, naming the file."""
    try:
        return build_config(read_yaml(path))
    except ConfigError as error:
        raise ConfigError(f"{path}: {error}") from None


def resumed_config(
    folder: Path, overrides: Mapping[str, Any] | None = None, recipe: str | None = None
) -> AnyRunConfig:
    """Return the configuration with which a run goes on: its own, with overrides on top.

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
    own = values.get("recipe")
    if recipe not in (None, own):
        raise ConfigError(
            f"{folder}: a run of the recipe {own}, got {recipe}; leave the recipe out to resume"
        )
    return build_config(values, overrides)


def check_new_folder(folder: Path) -> None:
    """Refuse a folder for a new run that holds a run or anything else. Raises ConfigError."""
    if (folder / "config.yaml").is_file():
        raise ConfigError(f"{folder} already holds a run: resume it, or choose another folder")
    if folder.exists() and (not folder.is_dir() or any(not _is_left(path) for path in folder.iterdir())):
        raise ConfigError(f"{folder}: expected a new or empty folder for the run")


def _is_left(path: Path) -> bool:
    return path.name in BEFORE_A_RUN or (path.name.startswith(".") and path.suffix == ".tmp")


def config_to_dict(config: AnyRunConfig) -> dict[str, Any]:
    """Return the configuration as plain mappings, lists and scalars, every key present."""
    return _plain(dataclasses.asdict(config))


def with_absolute_paths(config: AnyRunConfig) -> AnyRunConfig:
    """Return the configuration as a run folder has it, which stays usable from elsewhere."""
    paths = {"data.root": config.data.root, "model.weights": config.model.weights}
    found = {key: Path(path).expanduser().absolute() for key, path in paths.items() if path is not None}
    # Weights may also have a name.
    overrides = {key: str(path) for key, path in found.items() if key == "data.root" or path.exists()}
    return build_config(config_to_dict(config), overrides)


def changed_keys(old: AnyRunConfig, new: AnyRunConfig) -> list[str]:
    """Return the dotted keys whose values differ, in the order of the configuration."""
    before, after = (dict(_leaves(config_to_dict(config), "")) for config in (old, new))
    return [key for key in {**before, **after} if before.get(key) != after.get(key)]


def value_at(values: Any, dotted: str) -> object:  # noqa: ANN401
    """Return the value of a dotted key in nested mappings; None where there is none."""
    for part in dotted.split("."):
        values = values.get(part) if isinstance(values, dict) else None
    return values


def read_yaml(path: Path) -> dict[str, Any]:
    """Read a YAML mapping. Raises ConfigError, naming the file, like `botvision.io.yaml.read_yaml`."""
    try:
        return yaml.read_yaml(path)
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise ConfigError(str(error)) from None


def _find_recipe(name: str, beside: Path | None) -> Path:
    """The file of a recipe: a path, or a name that is looked for beside its child, then among ours."""
    if name.endswith((".yaml", ".yml")):
        path = ((beside or Path()) / name).resolve()
        if not path.is_file():
            found = "no regular file" if path.exists() and not path.is_dir() else "no such recipe file"
            raise ConfigError(f"{name}: {found}")
        return path
    for folder in (*([beside] if beside else []), OURS):
        path = (folder / f"{name}.yaml").resolve()
        if path.is_file():
            return path
    raise ConfigError(f"no recipe is called {name!r}{nearest(name, recipe_names())}")


def _merge(base: object, over: object) -> Any:  # noqa: ANN401
    """A new mapping of both, key by key, in which `over` wins."""
    if not isinstance(over, Mapping):
        return over
    under = base if isinstance(base, Mapping) else {}
    return {key: _merge(under.get(key), over.get(key, value)) for key, value in {**under, **over}.items()}


def _set_dotted(nested: dict[str, Any], dotted: str, value: object) -> None:
    *parents, leaf = dotted.split(".")
    for depth, part in enumerate(parents, 1):
        nested = nested.setdefault(part, {})
        if not isinstance(nested, dict):
            raise ConfigError(f"{dotted}: {'.'.join(parents[:depth])} holds no keys of its own")
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
