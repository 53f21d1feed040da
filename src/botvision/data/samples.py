"""Some images of a data set as files, for people to look at."""

from pathlib import Path

import torch
from PIL import Image

from botvision.data.classification import ClassificationDataset
from botvision.data.detection import DetectionDataset
from botvision.data.labels import spread
from botvision.io.files import replacing


def export_samples(dataset: ClassificationDataset, count: int, folder: str | Path) -> list[Path]:
    """Write images of all classes in turn as PNG files, `folder/<class>/<index>.png`.

    Args:
        dataset: N images; written as stored, before any augmentation.
        count: number of images, at most N are written.
        folder: made if it is not there.

    Returns:
        The files, in the order of the data set.
    """
    files = []
    for index in spread(dataset.targets, min(count, len(dataset))).tolist():
        path = Path(folder) / dataset.classes[int(dataset.targets[index])] / f"{index:06d}.png"
        pixels: torch.Tensor = dataset.load(index)
        with replacing(path) as temporary:
            Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(temporary, "PNG")
        files.append(path)
    return files


def export_detection_samples(
    dataset: DetectionDataset, count: int, folder: str | Path
) -> list[tuple[Path, int]]:
    """Write images, spread evenly over the data set, as PNG files, `folder/<image id>.png`.

    Args:
        dataset: N images; written the way up in which they are annotated.
        count: number of images, at most N are written.
        folder: made if it is not there.

    Returns:
        The files and their indices, in the order of the data set.
    """
    count = min(count, len(dataset))
    samples = []
    for index in (place * len(dataset) // count for place in range(count)):
        path = Path(folder) / f"{dataset.image_id(index):012d}.png"
        with replacing(path) as temporary:
            Image.fromarray(dataset.load(index).permute(1, 2, 0).numpy()).save(temporary, "PNG")
        samples.append((path, index))
    return samples
