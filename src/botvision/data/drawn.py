"""Tasks that need no files: which source draws their images."""

import torch

from botvision.data import generated, long_range
from botvision.data.config import DataConfig
from botvision.data.labels import Labelled


def open_drawn(config: DataConfig) -> tuple[str, dict[str, Labelled]]:
    """Name of the data, and the images of "train" and "val", of a source among `config.DRAWN`."""
    pairs, seed, size = config.source == "long_range", config.generated_seed, config.size
    parts = {}
    for split, count in (("train", config.num_images), ("val", config.num_val_images)):
        if pairs:
            source = long_range.LongRangeSource(seed, split, count, size, config.distances)
            points = source.centres(torch.arange(count))[:, 0]
            classes = list(long_range.CLASSES)
            parts[split] = Labelled(source, source.targets, classes, source.grouping, points)
        else:
            source = generated.GeneratedSource(seed, split, count, config.num_classes, size)
            classes = list(generated.CLASSES[: config.num_classes])
            parts[split] = Labelled(source, source.targets, classes)
    return "long-range pairs" if pairs else f"generated ({config.num_classes} classes)", parts
