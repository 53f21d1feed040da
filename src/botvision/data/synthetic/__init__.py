"""Tasks that need no files: every picture is drawn, a function of (seed, split, index) and the settings."""

from botvision.config.data import DataConfig
from botvision.data.labels import Labelled
from botvision.data.synthetic.pointing import PointingSource
from botvision.data.synthetic.textured import GeneratedSource

_SOURCES = {"generated": GeneratedSource, "pointing": PointingSource}


def open_synthetic(config: DataConfig) -> tuple[str, dict[str, Labelled]]:
    """Return the name of the data, and the images of "train" and "val", of a source in `SYNTHETIC`."""
    found = {split: _SOURCES[config.source](config, split) for split in ("train", "val")}
    parts = {}
    for split, source in found.items():
        parts[split] = Labelled(
            source, source.targets, list(source.classes), source.grouping, source.points()
        )
    return found["train"].title, parts
