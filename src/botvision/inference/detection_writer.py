"""Detections to files: COCO results, the same for people to read, and pictures. Written as they come."""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from botvision.coco.results import arrays_of
from botvision.data.detection_sources import read_annotated
from botvision.data.images import read_image
from botvision.inference.detector import DetectionPredictor, Detections
from botvision.inference.writer import JPEG_QUALITY, PICTURES, PREDICTIONS, SHEET, picture_names
from botvision.io.errors import DataError
from botvision.io.files import replacing
from botvision.plots.overlay import LONGEST_SIDE, Objects, Pair, overlay, truth_and_prediction_sheet
from botvision.plots.style import fit

RESULTS = "results.json"
RESULTS_IMAGES = "results-images.json"
DRAWN = 0.5  # detections with lower scores are in the files, but not in the pictures


@dataclass(frozen=True)
class Truth:
    """Images and categories that results refer to.

    Attributes:
        name: of the file, for messages.
        ids: image id by the file's name as it stands there.
        categories: name by id.
        sizes: (height, width) of the annotated image by its id, where the file says so.
    """

    name: str
    ids: Mapping[str, int]
    categories: Mapping[int, str]
    sizes: Mapping[int, tuple[int, int]] = field(default_factory=dict)

    @classmethod
    def read(cls, path: str | Path) -> "Truth":
        """Read the images and categories of a COCO file.

        Raises:
            ValueError: no JSON, or no COCO file; one line.
        """
        try:
            content = json.loads(Path(path).read_bytes())
            ids = {str(image["file_name"]): int(image["id"]) for image in content["images"]}
            categories = {int(each["id"]): str(each["name"]) for each in content["categories"]}
            sizes = {
                int(image["id"]): (image.get("height"), image.get("width")) for image in content["images"]
            }
        except OSError as error:
            raise ValueError(f"{path}: cannot be read ({error.strerror})") from None
        except (ValueError, KeyError, TypeError, RecursionError):
            raise ValueError(f"{path}: expected COCO JSON with images and categories") from None
        known = {number: size for number, size in sizes.items() if all(type(side) is int for side in size)}
        return cls(str(path), ids, categories, known)

    def compare(self, categories: Sequence[Mapping[str, Any]]) -> None:
        """Raise ValueError unless each category of a model means the same here."""
        for each in categories:
            here = self.categories.get(each["id"])
            if here != each["name"]:
                found = "no such category" if here is None else f"{here!r}"
                raise ValueError(
                    f"{self.name}: category {each['id']} is {found}, the model's {each['name']!r}"
                )

    def number(self, files: Sequence[Path]) -> dict[Path, int]:
        """Find the image ids of files: by the longest end of the path that is a name in the truth.

        Returns:
            Those that are there.

        Raises:
            ValueError: two files for one image.
        """
        found: dict[Path, int] = {}
        owners: dict[int, Path] = {}
        for file in files:
            parts = file.absolute().parts
            ends = (Path(*parts[start:]).as_posix() for start in range(len(parts)))
            number = next((self.ids[end] for end in ends if end in self.ids), None)
            if number is None:
                continue
            if number in owners:
                raise ValueError(f"{file}: image {number} of {self.name}, but so is {owners[number]}")
            owners[number], found[file] = file, number
        return found


def detect_annotated(
    predictor: DetectionPredictor,
    numbers: Mapping[Path, int],
    truth: Truth,
    *,
    keep_pictures: bool = False,
) -> Iterator[Detections]:
    """Go through the images of a truth like :meth:`DetectionPredictor.predict_files`, as they are annotated.

    That is upright by its EXIF orientation, or, if only that has the size the truth states, as stored: masks
    and boxes then lie where the truth's do. An image of neither size is reported like a bad file.

    Args:
        predictor: the detector.
        numbers: image ids of the files, as :meth:`Truth.number` finds them.
        truth: what they were found in.
        keep_pictures: hand the (bounded) pictures on, to be drawn upon.
    """
    files = list(numbers)
    for start in range(0, len(files), predictor.batch_size):
        images: dict[Path, Image.Image] = {}
        errors: dict[Path, str] = {}
        batch = files[start : start + predictor.batch_size]
        for file in batch:
            name, size = f"{file} (image id {numbers[file]})", truth.sizes.get(numbers[file])
            try:
                images[file] = read_image(file) if size is None else read_annotated(file, size, name)
            except DataError as error:
                errors[file] = str(error)
        # As arrays, which carry no orientation that would be applied once more.
        found = iter(predictor.predict([np.asarray(image) for image in images.values()]))
        for file in batch:
            if file in errors:
                yield Detections(str(file), (0, 0), [], errors[file])
                continue
            image, rows = images[file], next(found)["detections"]
            picture = fit(image, 1, LONGEST_SIDE) if keep_pictures else None
            yield Detections(str(file), (image.height, image.width), rows, None, picture)


def write_detections(
    found: Iterable[Detections],
    out: str | Path,
    files: Sequence[Path],
    description: Mapping[str, Any],
    *,
    image_ids: Mapping[Path, int] | None = None,
    pictures: bool = True,
    drawn: float = DRAWN,
) -> Iterator[Detections]:
    """Hand detections on one by one, each after it is written; the files appear after the last.

    ``results.json`` has the COCO results format: a list of ``image_id``, ``category_id``, ``bbox``, ``score``
    and, with masks, ``segmentation``. ``results-images.json`` holds ``images`` (``id``, ``file_name``,
    ``height``, ``width``) and ``categories``, as COCO has them. ``predictions.json`` holds ``model``,
    ``task``, ``categories``, ``predictions`` (``file``, ``image_id``, ``size``, ``detections`` without masks
    and, if drawn, ``picture``, relative to the JSON) and ``failed`` (``file``, ``error``).

    Args:
        found: Of all ``files``, in their order.
        out: Folder, made if it is not there.
        files: Names of the pictures follow these paths, below the folder they have in common.
        description: Of the model: ``name``, ``task``, ``categories``.
        image_ids: Of the files; None: running numbers from 1.
        pictures: Draw upon those that the detections carry.
        drawn: Detections with lower scores are left out of the pictures.
    """
    out = Path(out)
    categories = [{"id": each["id"], "name": each["name"]} for each in description["categories"]]
    numbers = {file: k for k, file in enumerate(files, 1)} if image_ids is None else image_ids
    failed: list[dict[str, Any]] = []
    with ExitStack() as stack:
        results = _List(stack, out / RESULTS, "[", "]")
        listing = _List(stack, out / RESULTS_IMAGES, '{"images": [', _end(categories=categories))
        facts = {"model": description.get("name"), "task": description.get("task"), "categories": categories}
        start = json.dumps(facts, ensure_ascii=False)[:-1] + ', "predictions": ['
        readable = _List(stack, out / PREDICTIONS, start, "")
        for each, file, name in zip(found, files, picture_names(files), strict=True):
            if each.error is not None:
                failed.append({"file": each.file, "error": each.error})
                yield each
                continue
            number = numbers[file]
            (height, width), rows = each.size, each.detections
            listing.add({"id": number, "file_name": each.file, "height": height, "width": width})
            for detection in rows:
                results.add(_record(detection, number))
            row: dict[str, Any] = {"file": each.file, "image_id": number, "size": list(each.size)}
            row["detections"] = [{k: v for k, v in d.items() if k != "mask"} for d in rows]
            if pictures and each.picture is not None:
                row["picture"] = f"{PICTURES}/{name}"
                names = [category["name"] for category in categories]
                card = overlay(each.picture, drawable(each, categories, drawn), names)
                with replacing(out / PICTURES / name) as temporary:
                    card.save(temporary, "JPEG", quality=JPEG_QUALITY, subsampling=0)
            readable.add(row)
            yield each
        readable.end = _end(failed=failed)
        for written in (results, listing, readable):
            written.close()


def drawable(found: Detections, categories: Sequence[Mapping[str, Any]], drawn: float = DRAWN) -> Objects:
    """Return the objects of a file in pixels of its picture; masks are decoded when they are drawn."""
    scale = found.picture.width / found.size[1] if found.picture is not None else 1.0
    records = [_record(row, 0) for row in found.detections]
    ids = [int(each["id"]) for each in categories]
    return Objects(**arrays_of(records, ids, threshold=drawn, scale=scale))


def write_pairs(pairs: Sequence[Pair], classes: Sequence[str], out: str | Path) -> Path:
    """Write `sheet.png`: ground truth beside prediction.

    Args:
        pairs: at least one.
        classes: K names.
        out: folder, made if it is not there.
    """
    path = Path(out) / SHEET
    sheet: Image.Image = truth_and_prediction_sheet(pairs, classes)
    with replacing(path) as temporary:
        sheet.save(temporary, "PNG")
    return path


class _List:
    """A JSON list in a file that grows entry by entry, and takes its name when the stack unwinds."""

    def __init__(self, stack: ExitStack, path: Path, start: str, end: str) -> None:
        self.end = end
        self._file: IO[bytes] = stack.enter_context(stack.enter_context(replacing(path)).open("wb"))
        self._between = "\n"
        self._write(start)

    def add(self, entry: Mapping[str, Any]) -> None:
        self._write(self._between + json.dumps(entry, ensure_ascii=False))
        self._between = ",\n"

    def close(self) -> None:
        self._write("\n" + self.end + "\n")

    def _write(self, text: str) -> None:
        self._file.write(text.encode("utf-8", "backslashreplace"))


def _end(**rest: Any) -> str:  # noqa: ANN401
    """Return the end of an object whose last value so far is an open list."""
    return "], " + json.dumps(rest, ensure_ascii=False)[1:]


def _record(row: Mapping[str, Any], image_id: int) -> dict[str, Any]:
    """Return a detection as a record of COCO results."""
    record = {
        "image_id": image_id,
        "category_id": row["category_id"],
        "bbox": row["box"],
        "score": row["score"],
    }
    return record | ({"segmentation": row["mask"]} if "mask" in row else {})
