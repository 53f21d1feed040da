"""Predictions, detections and attention as files: JSON, COCO results, pictures; each whole or not at all."""

import itertools
import json
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import numpy as np
from PIL import Image

from botvision.coco.instances import Instances
from botvision.inference.attention_maps import (
    BlockAttention,
    Choice,
    ImageAttention,
    distance_rows,
    map_rows,
    position_rows,
)
from botvision.inference.detector import readable
from botvision.inference.predictor import FileResult, Top
from botvision.inference.view import Hw
from botvision.io.files import replacing, write_text
from botvision.plots.attention import distance_figure, maps_figure, position_figure
from botvision.plots.overlay import (
    SideBySide,
    annotate,
    contact_sheet,
    overlay,
    truth_and_prediction_sheet,
)
from botvision.plots.style import save_figure

PREDICTIONS, RESULTS, RESULTS_IMAGES = "predictions.json", "results.json", "results-images.json"
ATTENTION, DISTANCE, POSITION = "attention.json", "distance.png", "position.png"
PICTURES, SHEET = "pictures", "sheet.png"
DRAWN = 0.5  # detections with lower scores are in the files, but not in the pictures
JPEG = {"format": "JPEG", "quality": 92}


def write_predictions(
    predictions: Iterable[FileResult[Top]],
    out: str | Path,
    files: Sequence[Path],
    description: Mapping[str, Any],
    *,
    pictures: bool = True,
) -> Iterator[FileResult[Top]]:
    """Hand predictions on one by one, each after its picture is written; the JSON follows the last.

    `predictions.json` holds `model`, `task`, `classes`, `predictions` (`file`, `top` and, if
    drawn, `picture`, relative to the JSON) and `failed` (`file`, `error`). It is written only if all
    went well.

    Args:
        predictions: of all `files`, in their order.
        out: folder, made if it is not there.
        files: names of the pictures follow these paths, below the folder they have in common.
        description: of the model: `name`, `task`, `classes`.
        pictures: draw upon those that the predictions carry; without, `files` are not looked at.
    """
    out = Path(out)
    done: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    names = picture_names(files) if pictures else itertools.repeat("")
    for each, name in zip(predictions, names, strict=pictures):
        if each.found is None:
            failed.append({"file": each.file, "error": each.error})
        else:
            done.append({"file": each.file, "top": each.found})
            if pictures and each.picture is not None:
                done[-1]["picture"] = f"{PICTURES}/{name}"
                _save(annotate(each.picture, each.found), out / PICTURES / name, **JPEG)
        yield each
    facts = {
        "model": description.get("name"),
        "task": description.get("task"),
        "classes": description["classes"],
    }
    text = json.dumps({**facts, "predictions": done, "failed": failed}, indent=2, ensure_ascii=False)
    write_text(out / PREDICTIONS, text + "\n")


def write_sheet(shown: Sequence[tuple[Image.Image | None, Top, str]], out: str | Path) -> Path:
    """Write `sheet.png`: the images in a grid, each with its best label, its score and its true class.

    Args:
        shown: picture, predictions (best first) and true class of each image; without picture it is left out.
        out: folder, made if it is not there.
    """
    captions, pictures = [], []
    for picture, top, truth in shown:
        if picture is not None:
            right = top[0]["label"] == truth
            verdict = "right" if right else f"is {truth}"
            captions.append(f"{top[0]['label']} {100 * top[0]['score']:.0f}% ({verdict})")
            pictures.append(picture)
    return _save(contact_sheet(pictures, captions, cell=200), Path(out) / SHEET, format="PNG")


def picture_names(files: Sequence[Path]) -> Iterator[str]:
    """Yield a distinct `.jpg` name for each file: its path below the common folder with another suffix.

    Where two would get the same name (`a.png` beside `a.gif`) the later one keeps its own: `a.gif.jpg`.
    """
    absolute = [Path(os.path.abspath(file)) for file in files]  # noqa: PTH100 - links stay what they are called
    if not absolute:
        return
    common = Path(os.path.commonpath([path.parent for path in absolute]))
    taken: set[str] = set()
    for path in absolute:
        inside = path.relative_to(common)
        others = (Path(f"{inside}{'_' * i}.jpg") for i in itertools.count())
        candidates = (c.as_posix() for c in itertools.chain([inside.with_suffix(".jpg")], others))
        # Without regard to case: some file systems have none.
        name = next(c for c in candidates if c.lower() not in taken)
        taken.add(name.lower())
        yield name


def write_detections(
    found: Iterable[FileResult[Instances]],
    out: str | Path,
    files: Sequence[Path],
    description: Mapping[str, Any],
    *,
    image_ids: Mapping[Path, int] | None = None,
    pictures: bool = True,
    drawn: float = DRAWN,
) -> Iterator[FileResult[Instances]]:
    """Hand detections on one by one, each after it is written; the files appear after the last.

    `results.json` has the COCO results format: a list of `image_id`, `category_id`, `bbox`, `score`
    and, with masks, `segmentation`. `results-images.json` holds `images` (`id`, `file_name`,
    `height`, `width`) and `categories`, as COCO has them. `predictions.json` holds `model`,
    `task`, `categories`, `predictions` (`file`, `image_id`, `size`, `detections` without masks
    and, if drawn, `picture`, relative to the JSON) and `failed` (`file`, `error`).

    Args:
        found: of all `files`, in their order.
        out: folder, made if it is not there.
        files: names of the pictures follow these paths, below the folder they have in common.
        description: of the model: `name`, `task`, `categories`.
        image_ids: of the files; None: running numbers from 1.
        pictures: draw upon those that the detections carry.
        drawn: detections with lower scores are left out of the pictures.
    """
    out = Path(out)
    categories = description["categories"]
    names_by_id = {each["id"]: each["name"] for each in categories}
    numbers = {file: k for k, file in enumerate(files, 1)} if image_ids is None else image_ids
    failed: list[dict[str, Any]] = []
    with ExitStack() as stack:
        results = _List(stack, out / RESULTS, "[", "]")
        images = _List(stack, out / RESULTS_IMAGES, '{"images": [', _end(categories=categories))
        facts = {"model": description.get("name"), "task": description.get("task"), "categories": categories}
        start = json.dumps(facts, ensure_ascii=False)[:-1] + ', "predictions": ['
        predictions = _List(stack, out / PREDICTIONS, start, "")
        for each, file, name in zip(found, files, picture_names(files), strict=True):
            if each.found is None or each.found.size is None:
                failed.append({"file": each.file, "error": each.error})
                yield each
                continue
            number, (height, width) = numbers[file], each.found.size
            images.add({"id": number, "file_name": each.file, "height": height, "width": width})
            records = each.found.records(number, [*names_by_id])
            for record in records:
                results.add(record)
            rows = [{k: v for k, v in d.items() if k != "mask"} for d in readable(records, names_by_id)]
            row = {"file": each.file, "image_id": number, "size": [height, width], "detections": rows}
            if pictures and each.picture is not None:
                row["picture"] = f"{PICTURES}/{name}"
                card = overlay(each.picture, each.found.above(drawn), [*names_by_id.values()])
                _save(card, out / PICTURES / name, subsampling=0, **JPEG)
            predictions.add(row)
            yield each
        predictions.end = _end(failed=failed)
        for written in (results, images, predictions):
            written.close()


def write_pairs(pairs: Sequence[SideBySide], classes: Sequence[str], out: str | Path) -> Path:
    """Write `sheet.png`: ground truth beside prediction.

    Args:
        pairs: at least one.
        classes: K names.
        out: folder, made if it is not there.
    """
    return _save(truth_and_prediction_sheet(pairs, classes), Path(out) / SHEET, format="PNG")


def _save(picture: Image.Image, path: Path, **options: Any) -> Path:  # noqa: ANN401
    with replacing(path) as temporary:
        picture.save(temporary, **options)
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


def write_attention(
    looked: Iterable[FileResult[ImageAttention]],
    files: Sequence[Path],
    out: str | Path,
    description: Mapping[str, Any],
    choice: Choice | None = None,
) -> list[Path]:
    """Write pictures of the maps one by one, then the distances, the positions and `attention.json`.

    Args:
        looked: of all `files`, in their order.
        files: names of the pictures follow these paths, below the folder they have in common.
        out: folder, made if it is not there.
        description: of the model: `name`, `task`.
        choice: which maps are drawn; the other files hold all blocks and heads.

    Returns:
        What was written: nothing where no file could be read.
    """
    out = Path(out)
    images: list[ImageAttention] = []
    records: list[dict[str, Any]] = []
    failed: list[dict[str, Any]] = []
    for each, name in zip(looked, picture_names(files), strict=True):
        if each.found is None or each.picture is None:
            failed.append({"file": each.file, "error": each.error})
            continue
        pictures = _picture_names(name, each.found.at)
        for query, picture in enumerate(pictures):
            figure = maps_figure(each.picture, each.found.view.size, map_rows(each.found, query, choice))
            save_figure(figure, out / picture)
        images.append(each.found)
        records.append(_image_record(each.file, each.found, pictures))
    if not images:
        return []
    written = [out / ATTENTION, out / PICTURES, out / DISTANCE]
    save_figure(distance_figure(distance_rows(images)), out / DISTANCE)
    positions = position_rows(images)
    if positions:
        save_figure(position_figure(positions), out / POSITION)
        written.append(out / POSITION)
    else:  # what lies there is of another model, and would be taken for this one's
        (out / POSITION).unlink(missing_ok=True)
    facts = {"model": description.get("name"), "task": description.get("task")}
    blocks = [_block_record(blocks) for blocks in zip(*(found.blocks for found in images), strict=True)]
    text = json.dumps(facts | {"blocks": blocks, "images": records, "failed": failed}, indent=2)
    write_text(out / ATTENTION, text + "\n")
    return written


def _picture_names(name: str, at: Sequence[Hw]) -> list[str]:
    """`pictures/NAME.png`, with the query's place where there are several."""
    stem = f"{PICTURES}/{name.removesuffix('.jpg')}"
    if len(at) == 1:
        return [f"{stem}.png"]
    counts = itertools.count(2)
    names: list[str] = []
    for y, x in at:
        own = f"{stem}-y{y}-x{x}.png"
        names.append(own if own not in names else f"{stem}-y{y}-x{x}-{next(counts)}.png")
    return names


def _block_record(blocks: Sequence[BlockAttention]) -> dict[str, Any]:
    """Means over the images, each of which counts the same."""
    means = [_means(block) for block in blocks]
    return {
        "name": blocks[0].name,
        "position": blocks[0].position,
        "heads": blocks[0].heads,
        "stride": blocks[0].stride,
        **{key: np.round(np.mean([each[key] for each in means], axis=0), 4).tolist() for key in means[0]},
        "branch_ratio": _rounded(mean_branch_ratio(blocks)),
    }


def mean_branch_ratio(blocks: Sequence[BlockAttention]) -> float | None:
    """Mean of a block's branch ratio over images; None if an image has none."""
    ratios = [block.branch_ratio for block in blocks if block.branch_ratio is not None]
    return float(np.mean(ratios)) if len(ratios) == len(blocks) else None


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 4)


def _image_record(file: str, found: ImageAttention, pictures: Sequence[str]) -> dict[str, Any]:
    blocks = [
        {
            "name": block.name,
            "grid": list(block.grid),
            **{key: np.round(value, 4).tolist() for key, value in _means(block).items()},
            "branch_ratio": _rounded(block.branch_ratio),
            "query_cells": [list(cell) for cell in block.cells],
        }
        for block in found.blocks
    ]
    queries = [list(point) for point in found.at]
    return {
        "file": file,
        "size": list(found.view.size),
        "queries": queries,
        "pictures": list(pictures),
        "blocks": blocks,
    }


def _means(block: BlockAttention) -> dict[str, Any]:
    """Means over queries of each head, and what uniform attention has."""
    distance = block.distance.double().mean((1, 2)).numpy()
    return {
        "distance_cells": distance,
        "distance_pixels": distance * block.stride,
        "entropy_bits": block.entropy.double().mean((1, 2)).numpy(),
        "uniform_distance_cells": block.uniform_distance,
        "uniform_entropy_bits": block.uniform_entropy,
    }
