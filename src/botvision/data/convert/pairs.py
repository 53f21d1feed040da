"""Images, and the file that belongs to each, `images/a.jpg` and `labels/a.txt`.

The last folder called images in an image's path is replaced: `train/images/a.jpg` goes with
`train/labels/a.txt`, `images/train/a.jpg` with `labels/train/a.txt`.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

from botvision.coco.annotations import NewFile
from botvision.data.cache import Progress, reported
from botvision.data.images import has_image_suffix, read_image
from botvision.io.errors import DataError


def read_pairs(
    root: Path, part: str, beside: str, suffixes: tuple[str, ...], records: NewFile,
    read: Callable[[Path, tuple[int, int], NewFile], None], progress: Progress | None,
) -> int:  # fmt: skip
    """Read every image and what belongs to it; returns the number of images without a label file."""
    files = list(_image_files(root, part, beside))
    missing = []
    for file, twin in reported(files, "converting", progress):
        path = root / file
        image = read_image(path)
        size = image.height, image.width
        records.add_image(file.as_posix(), size)
        label = next((p for p in (root / twin.with_suffix(s) for s in suffixes) if p.is_file()), None)
        if label is None:
            missing.append(path)
        else:
            read(label, size, records)
    if missing and (beside == "masks" or len(missing) == len(files)):
        raise DataError(f"{missing[0]}: nothing of the same name in {beside}/ ({len(missing)} such images)")
    return len(missing)


def _image_files(root: Path, part: str, twin: str) -> Iterator[tuple[Path, Path]]:
    """Each image below a folder called images, and where its twin would lie; both relative to the root."""
    start, found = root / part, False
    for path in sorted(start.rglob("*")):
        file = path.relative_to(root)
        folders = list(file.parent.parts)
        if "images" not in folders or not has_image_suffix(path.name) or not path.is_file():
            continue
        found = True
        last = len(folders) - 1 - folders[::-1].index("images")
        yield file, Path(*folders[:last], twin, *folders[last + 1 :], path.name)
    if not found:
        raise DataError(f"{start}: no images in a folder called images")
