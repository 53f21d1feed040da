"""Some images of a data set as files, for people to look at."""

from pathlib import Path

from botvision.data.classification import ClassificationDataset
from botvision.data.detection import DetectionDataset
from botvision.data.images import write_png
from botvision.data.labels import spread


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
        write_png(dataset.load(index), path)
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
        write_png(dataset.load(index), path)
        samples.append((path, index))
    return samples
