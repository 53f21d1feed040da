"""Tasks that need no files: which source draws their images."""

import torch

from botvision.config.data import DataConfig
from botvision.data.labels import Labelled
from botvision.data.synthetic import long_range, pointing
from botvision.data.synthetic import textured as generated


def open_drawn(config: DataConfig) -> tuple[str, dict[str, Labelled]]:
    """Name of the data, and the images of "train" and "val", of a source among `config.DRAWN`."""
    counts = {"train": config.num_images, "val": config.num_val_images}
    name, open_part = {
        "long_range": ("long-range pairs", _pairs),
        "pointing": ("pointing arrows", _arrows),
        "generated": (f"generated ({config.num_classes} classes)", _shapes),
    }[config.source]
    return name, {split: open_part(config, split, count) for split, count in counts.items()}


def _pairs(config: DataConfig, split: str, count: int) -> Labelled:
    source = long_range.LongRangeSource(config.generated_seed, split, count, config.size, config.distances)
    points = source.centres(torch.arange(count))[:, 0]
    return Labelled(source, source.targets, list(long_range.CLASSES), source.grouping, points)


def _arrows(config: DataConfig, split: str, count: int) -> Labelled:
    source = pointing.PointingSource(config.generated_seed, split, count, config.size, config.distances)
    points = source.points(torch.arange(count))
    return Labelled(source, source.targets, list(pointing.CLASSES), source.grouping, points)


def _shapes(config: DataConfig, split: str, count: int) -> Labelled:
    size, classes = config.size, config.num_classes
    source = generated.GeneratedSource(config.generated_seed, split, count, classes, size)
    return Labelled(source, source.targets, list(generated.CLASSES[:classes]))
