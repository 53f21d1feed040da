"""An evaluation as tables: COCO's twelve numbers, those of each class, accuracy by distance; strings only."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botvision.tables import basic as report
from botvision.tables.basic import table

if TYPE_CHECKING:  # for their names alone: they bring torch
    from botvision.coco.evaluate import ClassMetrics, CocoMetrics
    from botvision.coco.side_accuracy import SideAccuracy
    from botvision.metrics.attention_use import AttentionUse
    from botvision.metrics.classification import Breakdown

LISTED_CLASSES = 100  # of more, the lowest
NAMES = {"bbox": "box", "segm": "mask"}


def metrics_tables(metrics: Any) -> str:  # noqa: ANN401
    """Return the tables of a run's evaluation, whatever its task.

    Args:
        metrics: ``ClassificationMetrics``, or an object whose ``bbox`` and ``segm`` are ``CocoMetrics``, the
            latter None without masks; its ``sides`` are ``SideAccuracy``, if there are any.
    """
    if not hasattr(metrics, "bbox"):
        parts = [report.metrics_table(metrics)]
        if metrics.breakdown is not None:
            parts.append(breakdown_table(metrics.breakdown))
        return "\n\n".join(parts)
    text = coco_tables([found for found in (metrics.bbox, metrics.segm) if found is not None])
    sides = getattr(metrics, "sides", None)
    return text if sides is None else f"{text}\n\n{side_lines(sides)}"


def side_lines(sides: "SideAccuracy") -> str:
    """Return in a line or two how often a part's side is right."""
    parts, found, right = (int(values.sum()) for values in (sides.parts, sides.found, sides.right))
    what = f"of {parts} parts that have a left and a right, {found} are found at their place (box IoU .50) as"
    accuracy = "" if not found else f" ({tenth(sides.accuracy)} % side accuracy)"
    return f"Sides: {what} one or the other,\n{right} of them with the right side{accuracy}."


def coco_tables(metrics: "Sequence[CocoMetrics]") -> str:
    """Return AP of each class, then COCO's twelve numbers, for boxes, masks, or both; all in percent.

    Args:
        metrics: Of the same ground truth, at least one.
    """
    first = metrics[0]
    most = first.max_detections
    ap = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
    ar = ["ar1", "ar10", "ar_max", "ar_small", "ar_medium", "ar_large"]
    sizes = ["small", "medium", "large"]
    rows = [[NAMES[m.kind], *(tenth(getattr(m, name)) for name in ap)] for m in metrics]
    precision = table(["AP (%)", ".50:.95", ".50", ".75", *sizes], rows, "lrrrrrr")
    rows = [[NAMES[m.kind], *(tenth(getattr(m, name)) for name in ar)] for m in metrics]
    counts = [f"{min(n, most)} detection{'s' * (min(n, most) != 1)}" for n in (1, 10, most)]
    recall = table(["AR (%)", *counts, *sizes], rows, "lrrrrrr")
    legend = (
        f"{first.images:,} images, {first.instances:,} instances. At most {most} detections of a class in "
    )
    legend += (
        "an image; AP and AR: mean over IoU .50:.95 unless it is named; small: below 32x32 pixels, large: "
    )
    legend += "above 96x96."
    return "\n\n".join([_class_table(metrics), precision, recall, legend])


def breakdown_table(found: "Breakdown") -> str:
    """Return accuracy in each interval of a quantity, in percent, with its standard error."""
    bounds = zip(found.edges[:-1], found.edges[1:], strict=True)
    names = [f"{low:g} to {high:g}" for low, high in bounds]
    numbers = zip(found.count, map(tenth, found.top1), map(tenth, found.error), strict=True)
    rows = [[name, *cells] for name, cells in zip(names, numbers, strict=True)]
    return table(
        [f"{found.name} ({found.unit})", found.counted, "top-1 (%)", "± (standard error)"], rows, "lrrr"
    )


def attention_line(use: "AttentionUse") -> str:
    """Say in a line what an evaluation with attention replaced differs by from the one as trained."""
    from botvision.metrics.attention_use import TITLES

    effect = use.effects[0]
    where = "all blocks" if effect.block is None else effect.block
    scores = []
    for name, found in effect.contributions.items():
        own, other = tenth(use.as_trained[name]), tenth(effect.scores[name])
        change = found.negated()
        scores.append(f"{TITLES[name]} {other} % against {own} % as trained, {change.text()}")
    return f"attention {effect.how} in {where}: {'; '.join(scores)}, over {use.images:,} images"


def attention_table(use: "AttentionUse") -> str:
    """Return scores with attention replaced in several ways, and what attention contributes over each."""
    from botvision.metrics.attention_use import TITLES

    names = list(use.as_trained)
    header, rows = ["attention", "in"], [["as trained", ""]]
    for name in names:
        header += [f"{TITLES[name]} (%)", "contribution", "95 %"]
        rows[0] += [tenth(use.as_trained[name]), "", ""]
    for effect in use.effects:
        row = [effect.how, effect.block or "all blocks"]
        for name in names:
            found = effect.contributions[name]
            row += [tenth(effect.scores[name]), found.mean_text(), found.interval_text()]
        rows.append(row)
    text = table(header, rows, "ll" + "rrr" * len(names))
    return (
        f"{text}\n\n{use.images:,} images. Contribution: as trained minus this, in percentage points, with "
        "its interval over images. Nothing was retrained."
    )


def tenth(fraction: float) -> str:
    """A fraction as percent with the one decimal that AP is given with; nothing for not-a-number."""
    return "" if fraction != fraction else f"{100 * fraction:.1f}"


def _class_table(metrics: "Sequence[CocoMetrics]") -> str:
    """AP of the classes that the ground truth has, in the order of their ids; the others are named below."""
    by_class = list(zip(*(m.per_class for m in metrics), strict=True))
    known = [entries for entries in by_class if entries[-1].instances]
    absent = [entries[0].name for entries in by_class if not entries[0].instances]
    shown, title = known, "class"
    if len(known) > LISTED_CLASSES:
        lowest = sorted(known, key=lambda entries: entries[-1].ap)[:LISTED_CLASSES]
        shown, title = lowest, f"{LISTED_CLASSES} lowest of {len(known)} classes"
    header = [title, "images", "instances"]
    for m in metrics:
        name = NAMES[m.kind]
        header += [f"{name} AP", f"{name} AP50", f"{name} AR"]
    text = table(header, [_class_row(entries) for entries in shown], "lrr" + "rrr" * len(metrics))
    if absent:
        listed = ", ".join(absent[:20]) + (f" and {len(absent) - 20} more" if len(absent) > 20 else "")
        text += f"\n\nnot in the ground truth: {listed}"
    return text


def _class_row(entries: "Sequence[ClassMetrics]") -> list[object]:
    row: list[object] = [entries[0].name, entries[0].images, entries[0].instances]
    for entry in entries:
        row += [tenth(entry.ap), tenth(entry.ap50), tenth(entry.ar)]
    return row
