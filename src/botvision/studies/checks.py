"""Whether the runs of a study can be measured as its file says; looked at before any of them is trained.

Nothing here imports torch.
"""

from collections.abc import Iterable, Mapping
from typing import Any

from botvision.config.data import QUANTITIES
from botvision.config.recipes import build_config, config_to_dict
from botvision.config.run import EVALUATION_KEYS, AnyRunConfig, DetectionRunConfig
from botvision.config.schema import ConfigError, nearest
from botvision.metrics.runs import INCIDENTAL_SETTINGS, SCORES
from botvision.studies.spec import Study


def blamed(recipe: Mapping[str, Any], layers: Iterable[tuple[str, Mapping[str, str]]], otherwise: str) -> str:
    """Returns where the keys stand with which a recipe makes no configuration any more.

    Args:
        recipe: from `load_recipe`.
        layers: places in the study file, and the keys that are set there on top of those before.
        otherwise: returned where all of these make one.
    """
    given: dict[str, str] = {}
    for place, keys in layers:
        given |= keys
        try:
            build_config(recipe, given)
        except ConfigError:
            return place
    return otherwise


def check_run(study: Study, scale_name: str, arm: str, config: AnyRunConfig) -> None:
    """Looks for the study's metrics and axes in what a run and its evaluations yield.

    Args:
        study: that the run belongs to.
        scale_name: of the scale.
        arm: of the run.
        config: of the run.

    Raises:
        ConfigError: one line with the place in the file.
    """
    scores = _scores(config)
    for metric in study.metrics:
        if metric not in scores:
            raise ConfigError(
                f"{study.name}: metrics: a run of arm {arm} (task {config.task}) has no score "
                f"{metric!r}{nearest(metric, list(scores))}"
            )
    for axis, spec in study.axes.items():
        where = f"{study.name}: axes.{axis}"
        if spec.table is not None:
            _check_table(f"{where}.table", spec.table, arm, config)
        if spec.key is not None:
            _check_key(f"{where}.key", spec.key, config)
            _check_places(study, scale_name, axis, config)


def _scores(config: AnyRunConfig) -> tuple[str, ...]:
    names = SCORES[config.task]
    masks = not isinstance(config, DetectionRunConfig) or config.model.detector.masks
    return names if masks else tuple(name for name in names if not name.startswith("mask_"))


def _check_table(where: str, table: str, arm: str, config: AnyRunConfig) -> None:
    quantity = QUANTITIES.get(config.data.source)
    known = f"top1_by_{quantity}" if quantity else "none"
    if table != known:
        raise ConfigError(f"{where}: {table!r} is no table in the evaluations of arm {arm}; known: {known}")


def _check_key(where: str, key: str, config: AnyRunConfig) -> None:
    # train.* is how fast an evaluation goes: it finds the same
    allowed = tuple(name for name in EVALUATION_KEYS[config.task] if not name.startswith("train."))
    if not key.startswith(allowed):
        words = " or ".join(f"{name}*" if name.endswith(".") else name for name in allowed)
        raise ConfigError(f"{where}: expected a key that an evaluation can set, {words}, got {key!r}")
    if key in INCIDENTAL_SETTINGS:
        raise ConfigError(f"{where}: expected a key on which the scores depend, got {key!r}")
    values: Any = config_to_dict(config)
    for part in key.split("."):
        if not isinstance(values, dict) or part not in values:
            raise ConfigError(
                f"{where}: unknown key {key}{nearest(part, list(values)) if isinstance(values, dict) else ''}"
            )
        values = values[part]


def _check_places(study: Study, scale_name: str, axis: str, config: AnyRunConfig) -> None:
    key = study.axes[axis].key
    for place in study.scales[scale_name].at.get(axis, ()):
        try:
            build_config(config_to_dict(config), {str(key): f"{place:g}"})
        except ConfigError as error:
            raise ConfigError(f"{study.name}: scales.{scale_name}.at.{axis}: {error}") from None
