"""From a folder and some keys to the data configuration that a recipe with these would have."""

import dataclasses
from collections.abc import Mapping
from pathlib import Path

from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.config.schema import Text, build
from botvision.data.coco_folder import is_detection_data


def data_config(root: str, overrides: Mapping[str, str]) -> DataConfig | DetectionDataConfig:
    """Build a data configuration; whether it is for detection the folder, or else the keys tell.

    Args:
        root: `data.root`.
        overrides: dotted keys, all of them `data.KEY`, as texts.

    Raises:
        ConfigError: one line with the key that is unknown or wrong.
    """
    given = {key.removeprefix("data."): Text(value) for key, value in overrides.items()}
    names = [{field.name for field in dataclasses.fields(c)} for c in (DetectionDataConfig, DataConfig)]
    detection = is_detection_data(Path(root)) or bool((names[0] - names[1]) & set(given))
    return build(DetectionDataConfig if detection else DataConfig, {"root": root, **given}, "data.")
