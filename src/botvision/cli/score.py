"""Evaluation of a results file that any detector wrote: numbers, JSON, picture."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from botvision.io.files import write_text

if TYPE_CHECKING:  # it brings torch
    from botvision.coco.evaluate import CocoMetrics


def score(results: str | Path, truth: str | Path, max_detections: int = 100) -> "list[CocoMetrics]":
    """Evaluate boxes, masks, or both: whatever the results carry.

    Args:
        results: COCO results, JSON.
        truth: COCO instances, JSON.
        max_detections: Of one class in one image.

    Raises:
        ValueError: A file or a record that cannot be used, or results with neither boxes nor masks.
    """
    from botvision.coco.evaluate import evaluate_coco
    from botvision.coco.files import kinds_in, read_results, read_truth

    records, name = read_results(results)
    known = read_truth(truth)
    kinds = kinds_in(records, known)
    if not kinds:
        raise ValueError(f"{name}: results with neither bbox nor segmentation")
    return [evaluate_coco(known, records, kind, max_detections, name=name) for kind in kinds]


def write_scores(
    metrics: "list[CocoMetrics]", results: str | Path, truth: str | Path, out: Path
) -> list[Path]:
    """Write ``RESULTS-eval.json`` and ``RESULTS-pr.png`` into a folder, and return their paths.

    Raises:
        ValueError: The folder cannot be written to.
    """
    from botvision.plots.curves import precision_recall

    stem = Path(results).stem
    numbers, picture = out / f"{stem}-eval.json", out / f"{stem}-pr.png"
    values = {
        "results": str(results),
        "truth": str(truth),
        **{found.kind: found.to_dict() for found in metrics},
    }
    try:
        write_text(numbers, json.dumps(values, indent=2, allow_nan=False, ensure_ascii=False) + "\n")
        precision_recall(metrics, picture)
    except OSError as error:
        raise ValueError(f"{out}: {error.strerror}; name another folder with --out") from None
    return [numbers, picture]
