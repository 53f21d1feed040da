"""COCO's twelve numbers of 2,000 images: ours against pycocotools, boxes and masks, numbers equal.

    python benchmarks/evaluation.py                       # all cases (5 minutes), into results/evaluation.*
    RAYON_NUM_THREADS=1 python benchmarks/evaluation.py --out one_core    # ours on one core, too
    python benchmarks/evaluation.py --smoke --out try     # 100 images, to see that it runs

Images and results are the 100 that COCO's own code comes with, twenty times under new ids; once with the 7
detections an image that they have, once with five times as many, as a detector gives them. "from files" is
from two JSON files, ground truth and results of one kind, to the twelve numbers; without it the ground truth
is read and the results are at hand. Needs coco_eval_ref/ of the data beside the checkout, or of the folder
that BOTVISION_DATA names.
"""

import contextlib
import copy
import io
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import hotcoco
import numpy as np
from hotcoco import mask as rle
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.results import FIELDS, FoundObjects
from botvision.coco.truth import KINDS, Kind, read_truth
from harness import Times, arguments, environment, interleaved, progress, ratio, table, write
from shared_data import asked, shared_data

REFERENCE = Path("coco_eval_ref/dataset/cocoapi")
RESULTS = "instances_val2014_fake{}100_results.json"
COPIES = 20
MORE = 5  # detections for each published one
SHIFT = 12  # pixels, standard deviation
TOLERANCE = 1e-10  # as in the tests: the same arithmetic, but for the order of a sum
FROM_FILES = " from files"
TIMES_FASTER = {"bbox from files": 25.0, "segm from files": 12.0, "bbox": 10.0, "segm": 10.0}
PARTS: tuple[str, ...] = tuple(TIMES_FASTER)
MATCHING = "matching alone"

HEAD = """# Evaluation of COCO results, ours and pycocotools

All twelve numbers equal to 1e-10. Ours uses the cores that it may, where it matches and rasterises
(pycocotools knows one); `RAYON_NUM_THREADS=1` keeps it to one. Python's garbage collector rests for both."""

Record = dict[str, Any]
Numbers = Callable[[], list[float]]


@dataclass(frozen=True)
class Scene:
    """Ground truth, and results with boxes and masks, as COCO's files hold them."""

    truth: Record
    results: list[Record]


def reference(folder: Path) -> Scene:
    """COCO's own sample: 100 images, 734 detections, whose boxes and masks are a file each."""
    boxes, masks = (json.loads((folder / RESULTS.format(kind)).read_text()) for kind in KINDS)
    results = [box | mask for box, mask in zip(boxes, masks, strict=True)]
    return Scene(json.loads((folder / "instances_val2014_100.json").read_text()), results)


def repeated(scene: Scene, copies: int, random: np.random.Generator) -> Scene:
    """The same images several times, numbered from 1; no two copies have the same scores."""
    old = [image["id"] for image in scene.truth["images"]]
    places = {number: place for place, number in enumerate(old, 1)}

    def moved(records: Sequence[Record], key: str) -> list[Record]:
        return [
            {**record, key: copy * len(old) + places[record[key]]}
            for copy in range(copies)
            for record in records
        ]

    annotations = moved(scene.truth["annotations"], "image_id")
    truth = {
        "images": moved(scene.truth["images"], "id"),
        "annotations": [{**record, "id": number} for number, record in enumerate(annotations, 1)],
        "categories": scene.truth["categories"],
    }
    results = moved(scene.results, "image_id")
    for record, factor in zip(results, random.uniform(0.99, 1, len(results)).tolist(), strict=True):
        record["score"] = round(record["score"] * factor, 6)
    return Scene(truth, results)


def multiplied(scene: Scene, times: int, random: np.random.Generator) -> Scene:
    """Every detection as it is, and again with lower scores and a little off, as detectors have them."""
    results = list(scene.results)
    for record in scene.results:
        for _ in range(times - 1):
            right, down = (int(step) for step in random.normal(0, SHIFT, 2).round())
            score = record["score"] * float(random.uniform(0.05, 0.7))
            results.append(shifted(record, right, down) | {"score": score})
    return Scene(scene.truth, results)


def shifted(record: Record, right: int, down: int) -> Record:
    """A result moved by whole pixels; what leaves the image is lost to the mask."""
    x, y, *sides = record["bbox"]
    mask = rle.decode(record["segmentation"])
    out, (height, width) = np.zeros_like(mask), mask.shape
    kept = mask[max(0, -down) : height - max(0, down), max(0, -right) : width - max(0, right)]
    out[max(0, down) : height + min(0, down), max(0, right) : width + min(0, right)] = kept
    encoded = rle.encode(np.asfortranarray(out))["counts"].decode("ascii")
    segmentation = {"size": [height, width], "counts": encoded}
    return {**record, "bbox": [x + right, y + down, *sides], "segmentation": segmentation}


def contenders(scene: Scene, part: str, folder: Path) -> dict[str, Numbers]:
    """Functions that return the twelve numbers of a kind.

    Args:
        scene: what is evaluated.
        part: one of `PARTS`.
        folder: for the files.
    """
    kind = kind_of(part)
    if part.endswith(FROM_FILES):
        truth, results = folder / "truth.json", folder / "results.json"
        truth.write_text(json.dumps(scene.truth))
        results.write_text(json.dumps(of_kind(scene.results, kind)))
        return {
            "ours": lambda: list(evaluate_coco(truth, results, kind).numbers().values()),
            "pycocotools": lambda: _pycocotools(truth, results, kind),
        }
    ours, theirs = read_truth(scene.truth), _pycocotools_truth(scene.truth)
    return {
        "ours": lambda: list(evaluate_coco(ours, scene.results, kind).numbers().values()),
        "pycocotools": lambda: _pycocotools(theirs, of_kind(scene.results, kind), kind),
    }


def kind_of(part: str) -> Kind:
    return "bbox" if part.startswith("bbox") else "segm"


def of_kind(results: Sequence[Record], kind: Kind) -> list[Record]:
    """New records without what is the other kind's: pycocotools would take a mask's size from its box."""
    fields = ("image_id", "category_id", "score", FIELDS[kind])
    return [{field: record[field] for field in fields} for record in results]


def matching(scene: Scene, kind: Kind) -> Callable[[], None]:
    """What bounds ours: hotcoco's share, everything read, checked and handed over before."""
    truth = read_truth(scene.truth)
    index, found = truth.index(kind), FoundObjects(scene.results, truth, kind).index()

    def run() -> None:
        evaluation = hotcoco.COCOeval(index, found, kind)
        evaluation.evaluate()
        evaluation.accumulate()

    return run


def _pycocotools_truth(truth: Record) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        found = COCO()
        found.dataset = copy.deepcopy(truth)  # pyrefly: ignore[bad-assignment]
        found.createIndex()
    return found


def _pycocotools(truth: COCO | Path, results: list[Record] | Path, kind: Kind) -> list[float]:
    found: Any = str(results) if isinstance(results, Path) else results
    with contextlib.redirect_stdout(io.StringIO()):
        known = COCO(str(truth)) if isinstance(truth, Path) else truth
        evaluation = COCOeval(known, known.loadRes(found), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation.stats.tolist()


def difference(runs: Mapping[str, Numbers]) -> float:
    """The largest between any of the numbers; what the ground truth has nothing of is -1 to pycocotools."""
    ours, theirs = (np.nan_to_num(np.array(run()), nan=-1) for run in runs.values())
    return float(np.abs(ours - theirs).max())


def measure(scenes: Mapping[str, Scene], seconds: float, least: int) -> list[dict[str, object]]:
    """One row for each set of results and part."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for (name, scene), part in progress(list(product(scenes.items(), PARTS)), "evaluation"):
            runs = contenders(scene, part, Path(folder))
            apart = difference(runs)  # and the warm-up
            if not apart <= TOLERANCE:
                raise RuntimeError(f"{name}, {part}: the numbers differ by {apart}")
            bound = {MATCHING: matching(scene, kind_of(part))}
            times = interleaved({**runs, **bound}, seconds, least=least, warm_up=0)
            rows.append(_row(name, scene, part, times) | {"largest difference": apart})
    return rows


def _row(name: str, scene: Scene, part: str, times: Mapping[str, Times]) -> dict[str, object]:
    return {
        "results": name,
        "images": len(scene.truth["images"]),
        "detections": len(scene.results),
        "part": part,
        "ours, ms": times["ours"].median,
        "pycocotools, ms": times["pycocotools"].median,
        "times faster": 1 / ratio(times, "ours", "pycocotools"),
        "matching alone, ms": times[MATCHING].median,
        "matching alone, times faster": 1 / ratio(times, MATCHING, "pycocotools"),
        "spread of ours": times["ours"].spread,
        "spread of pycocotools": times["pycocotools"].spread,
        "repetitions": times["ours"].count,
    }


def body(rows: Sequence[Mapping[str, Any]]) -> str:
    """What was asked for, then all rows."""
    lines = [
        asked(
            f"{row['images']} images, {row['detections']} detections, {row['part']}: times faster",
            row["times faster"],
            TIMES_FASTER[row["part"]],
        )
        for row in rows
    ]
    parts = [
        "## What was asked",
        table(lines),
        "## What bounds it",
        *bounds(rows),
        "## All cases",
        table(rows),
    ]
    return "\n\n".join(parts)


def bounds(rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    """Say how far ours is from hotcoco's matching, which it cannot make faster."""
    lines = [
        {
            "what": f"{row['detections']} detections, {row['part']}",
            "ours, ms": row["ours, ms"],
            "of it matching": f"{row['matching alone, ms'] / row['ours, ms']:.0%}",
            "times faster": f"{row['times faster']:.1f}",
            "if it were matching alone": f"{row['matching alone, times faster']:.1f}",
        }
        for row in rows
    ]
    text = "Matching is hotcoco's, with all read, checked and handed over before; ours adds that to it."
    return text, table(lines)


def threads() -> str:
    """How many hotcoco uses: as many as it was told, or the cores that this process may use."""
    told = os.environ.get("RAYON_NUM_THREADS")
    if told:
        return told
    # macOS has no affinity
    return str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1)


def main() -> None:
    """Measure, write, and print the tables."""
    parser = arguments(__doc__ or "")
    args = parser.parse_args()
    scene, random = reference(shared_data(parser, str(REFERENCE)) / REFERENCE), np.random.default_rng(0)
    copies = 1 if args.smoke else COPIES
    scenes = {"published": repeated(scene, copies, random)}
    if not args.smoke:
        scenes[f"{MORE} times as many"] = repeated(multiplied(scene, MORE, random), copies, random)
    rows = measure(scenes, args.seconds, least=1 if args.smoke else 3)
    made_with = environment("cpu") | {"threads": f"{threads()} (ours), 1 (pycocotools)"}
    write("evaluation", rows, HEAD, args.out, made_with, body=body(rows))
    print(body(rows))


if __name__ == "__main__":
    main()
