"""The command `predict`, for classifiers and detectors."""

import argparse
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

from botvision.cli.output import warn
from botvision.tables.predictions import objects_line, ranking

if TYPE_CHECKING:
    from PIL import Image

    from botvision.cli.inputs import Inputs
    from botvision.data.detection import DetectionDataset
    from botvision.inference.detector import DetectionPredictor

LISTED = 50  # more files than this get a bar instead of a line each
CLASSIFIER_BATCH, DETECTOR_BATCH = 32, 4
DEFAULT_TOPK = 5
SAMPLES = "images"


def predict(args: argparse.Namespace) -> int:
    """Run the model of a run on images.

    Returns:
        The exit code: 0, or 2 where no image could be read.

    Raises:
        ValueError: one line on what is wrong with the arguments, the run or the truth.
    """
    from botvision.inference.predictor import find_model

    _, task = find_model(args.model)
    for name in ("topk",) if task == "detect" else ("score", "max_detections", "truth", "write"):
        if getattr(args, name) is not None:
            kind = "a detector" if task == "detect" else "a classifier"
            raise ValueError(f"--{name.replace('_', '-')}: {args.run} is {kind}, which has no such choice")
    return _detect(args) if task == "detect" else _classify(args)


def check_new(out: Path) -> None:
    """Refuse a folder with the results of other images, which would be taken for those of these."""
    from botvision.inference import labelme
    from botvision.inference.writers import PICTURES, PREDICTIONS, RESULTS, RESULTS_IMAGES, SHEET

    names = (PREDICTIONS, RESULTS, RESULTS_IMAGES, SHEET, PICTURES, labelme.FOLDER, SAMPLES)
    there = [
        name for name in names if (path := out / name).is_file() or (path.is_dir() and any(path.iterdir()))
    ]
    if there:
        places = (out.with_name(f"{out.name}-{number}") for number in count(2))
        new = shlex.quote(str(next(place for place in places if not place.exists())))
        raise ValueError(f"{out}: holds {' and '.join(there[:2])} already; --out {new} is new")


def _classify(args: argparse.Namespace) -> int:
    from botvision.cli.inputs import Inputs
    from botvision.inference.predictor import Predictor
    from botvision.inference.writers import PICTURES, PREDICTIONS, write_predictions, write_sheet

    predictor = Predictor.from_run(args.model, device=args.device, batch_size=args.batch or CLASSIFIER_BATCH)
    try:
        predictor.require_labels_of_images()
    except ValueError as error:
        raise ValueError(f"{args.run}: {error}") from None
    out, pictures, inputs = Path(args.out), not args.no_pictures, Inputs(args.max_pixels)
    files = inputs.find(args.paths, args.out) if args.paths else _samples(args)
    read = 0
    shown: list[tuple[Image.Image | None, list[dict[str, Any]], str]] = []
    topk = args.topk or DEFAULT_TOPK
    found = predictor.predict_files(files, topk, keep_pictures=pictures, read=inputs.read)
    for prediction in write_predictions(found, out, files, predictor.description, pictures=pictures):
        if prediction.found is None:
            warn(str(prediction.error))
            continue
        read += 1
        print(f"{prediction.file}: {ranking(prediction.found)}")
        if not args.paths:  # a few samples, all at once on one sheet
            shown += [(prediction.picture, prediction.found, Path(prediction.file).parent.name)]
    written = [str(out / PREDICTIONS), *([f"{out / PICTURES}/"] if pictures and read else [])]
    if not args.paths and pictures:
        written.append(str(write_sheet(shown, out)))
    return _end(len(files), read, "classified", inputs, written)


def _samples(args: argparse.Namespace) -> list[Path]:
    """Write images that the run was evaluated on as files; the folder of each is its class."""
    from botvision.data.classification import open_splits
    from botvision.data.samples import export_samples

    config = _config(args.run)
    val = open_splits(config.data, config.train.seed).val
    return export_samples(val, args.samples, Path(args.out) / SAMPLES)


@dataclass(frozen=True)
class _Images:
    """What a detector is to look at.

    Attributes:
        files: in order.
        read: how a file is read.
        ids: image id of each file; None: running numbers.
        data: where they come from, if they are samples of the run's own data.
        places: of the samples in `data`.
    """

    files: list[Path]
    read: "Callable[[str | Path], Image.Image]"
    ids: dict[Path, int] | None = None
    data: "DetectionDataset | None" = None
    places: Sequence[int] = ()


def _detect(args: argparse.Namespace) -> int:
    from botvision.cli.inputs import Inputs
    from botvision.inference import labelme
    from botvision.inference.detector import DetectionPredictor
    from botvision.inference.writers import (
        DRAWN,
        PICTURES,
        PREDICTIONS,
        RESULTS,
        write_detections,
        write_pairs,
    )
    from botvision.io.progress import CountBar
    from botvision.plots.overlay import SideBySide

    predictor = DetectionPredictor.from_run(
        args.model,
        device=args.device,
        batch_size=args.batch or DETECTOR_BATCH,
        score_threshold=args.score,
        max_detections=args.max_detections,
    )
    out, pictures, shapes = Path(args.out), not args.no_pictures, Counter[str]()
    inputs = Inputs(args.max_pixels)
    images = (_images if args.paths else _detection_samples)(args, predictor, inputs)
    files, classes = images.files, [category.name for category in predictor.categories]
    drawn = DRAWN if args.score is None else args.score
    found = predictor.predict_files(files, keep_pictures=pictures, read=images.read)
    if args.write:
        found = labelme.write_labelme(found, out / labelme.FOLDER, files, classes, drawn, shapes)
    written = write_detections(
        found, out, files, predictor.description, image_ids=images.ids, pictures=pictures, drawn=drawn
    )
    read, pairs = 0, []
    with CountBar() as bar:
        for place, each in enumerate(written):
            if len(files) > LISTED:
                bar("searching", place + 1, len(files))
            if each.found is None:
                warn(str(each.error), say=bar.say)
                continue
            read += 1
            if len(files) <= LISTED:
                print(f"{each.file}: {objects_line(each.found, classes, drawn)}")
            if images.data is not None and each.picture is not None:  # a few, all at once on one sheet
                index = images.places[place]
                truth, caption = images.data.truth(index), images.data.name_of(index)
                pairs.append(SideBySide(each.picture, truth, each.found.above(drawn), caption))
    names = [str(out / RESULTS), str(out / PREDICTIONS)]
    if pictures and read:
        names.append(f"{out / PICTURES}/")
    if args.write and read:
        names.append(f"{out / labelme.FOLDER}/")
        _tell_shapes(shapes, drawn)
    if pairs:
        names.append(str(write_pairs(pairs, classes, out)))
    code = _end(len(files), read, "searched", inputs, names)
    if args.truth is not None and read:
        print(f"next: botvision eval {shlex.quote(str(out / RESULTS))} --truth {shlex.quote(args.truth)}")
    return code


def _tell_shapes(shapes: Counter[str], least: float) -> None:
    """What LabelMe is given, and how."""
    print(f"\nLabelMe: {shapes['objects']:,} objects with a score of at least {least:g}")
    if count := shapes["with holes"]:
        print(
            f"note: {count:,} with holes, which a polygon cannot have: masks, as LabelMe 5.3 and later reads"
        )


def _images(args: argparse.Namespace, predictor: "DetectionPredictor", inputs: "Inputs") -> _Images:
    """Find the images that PATH names, those of the truth alone if one is given."""
    from botvision.inference.detector import Truth, reader_of

    files = inputs.find(args.paths, args.out)
    if args.truth is None:
        return _Images(files, inputs.read)
    truth = Truth.read(args.truth)
    numbered = truth.numbered(predictor.categories)
    if numbered != predictor.categories:
        warn(f"{args.truth} has other category ids than the model: matched by name, results have its ids")
        predictor.number(numbered)
    lacking = truth.compare(predictor.categories)
    if lacking:
        names = ", ".join(lacking[:5]) + ", ..." * (len(lacking) > 5)
        which = f"{len(lacking)} of the model's categories ({names})"
        warn(f"{args.truth} does not list {which}: what is found of them counts nowhere in its evaluation")
    images = truth.find(files)
    if not images:
        raise ValueError(f"{args.truth}: none of the {_count(len(files))} is an image of it")
    strangers = [file for file in files if file not in images]
    if len(strangers) > LISTED:
        warn(f"{len(strangers)} files are no images of {args.truth}, left out; the first: {strangers[0]}")
    else:
        for file in strangers:
            warn(f"{file}: no image of {args.truth}, left out")
    ids = {file: image.id for file, image in images.items()}
    seen, all_images = set(ids.values()), {image.id: name for name, image in truth.images.items()}
    unseen = [name for number, name in all_images.items() if number not in seen]
    if unseen:
        which = f"{len(unseen)} of {len(all_images)} images of {args.truth} are not among the files"
        warn(f"{which} (first: {unseen[0]}): their objects will count as missed")
    return _Images(list(ids), reader_of(images, **inputs.options), ids)


def _detection_samples(
    args: argparse.Namespace, predictor: "DetectionPredictor", inputs: "Inputs"
) -> _Images:
    """Write images that the run was evaluated on as files in the output folder."""
    from botvision.data.detection import open_detection_split
    from botvision.data.samples import export_detection_samples
    from botvision.io.progress import CountBar

    if args.truth is not None:
        raise ValueError("--truth: expected PATH, the images that it describes")
    config = _config(args.run)
    with CountBar() as bar:
        data = open_detection_split(config.data, "val", config.train.seed, predictor.categories, bar)
    samples = export_detection_samples(data, args.samples, Path(args.out) / SAMPLES)
    files, places = [path for path, _ in samples], [index for _, index in samples]
    ids = {path: data.image_id(index) for path, index in samples}
    return _Images(files, inputs.read, ids, data, places)


def _config(run: str) -> Any:  # noqa: ANN401
    """Read the configuration of a run: where its own images are."""
    from botvision.config.recipes import load_config

    path = Path(run) / "config.yaml"
    if not path.is_file():
        raise ValueError(f"{run}: holds a model but not its run's config.yaml; name the images to use")
    return load_config(path)


def _end(files: int, read: int, done: str, inputs: "Inputs", written: Sequence[str]) -> int:
    """Say what was done, left out and written, and return the exit code."""
    print(f"\n{_count(files)}: {read} {done}, {files - read} could not be read")
    inputs.tell()
    print(f"written: {', '.join(written)}")
    return 0 if read else 2


def _count(files: int) -> str:
    return f"{files} file{'s' * (files != 1)}"
