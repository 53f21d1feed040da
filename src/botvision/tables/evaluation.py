"""An evaluation: COCO's twelve numbers, those of each class, accuracy by distance, what attention does."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from botvision.metrics.attention_use import TITLES
from botvision.tables.markdown import percent, table

if TYPE_CHECKING:  # for their names alone: they bring torch
    from botvision.coco.evaluate import CocoMetrics
    from botvision.coco.sides import SideAccuracy
    from botvision.metrics.attention_use import AttentionUse
    from botvision.metrics.classification import Breakdown, ClassificationMetrics

WORST_CLASSES = 5  # of a classifier
LISTED_CLASSES = 100  # of a detector; of more, the lowest
NAMES = {"bbox": "box", "segm": "mask"}


def metrics_tables(metrics: Any) -> str:  # noqa: ANN401
    """Return the tables of a run's evaluation, whatever its task.

    Args:
        metrics: `ClassificationMetrics`, or an object whose `bbox` and `segm` are `CocoMetrics`, the latter
            None without masks; its `sides` are `SideAccuracy`, if there are any.
    """
    if not hasattr(metrics, "bbox"):
        parts = _class_tables(metrics)
        parts += [] if metrics.breakdown is None else [breakdown_table(metrics.breakdown)]
        return "\n\n".join(parts)
    text = coco_tables([found for found in (metrics.bbox, metrics.segm) if found is not None])
    sides = getattr(metrics, "sides", None)
    return text if sides is None else f"{text}\n\n{side_lines(sides)}"


def side_lines(sides: "SideAccuracy") -> str:
    """Return in a line or two how often a part's side is right."""
    parts, found, right = (int(values.sum()) for values in (sides.parts, sides.found, sides.right))
    what = f"of {parts} parts that have a left and a right, {found} are found at their place (box IoU .50) as"
    accuracy = "" if not found else f" ({_tenth(sides.accuracy)} % side accuracy)"
    return f"Sides: {what} one or the other,\n{right} of them with the right side{accuracy}."


def coco_tables(metrics: "Sequence[CocoMetrics]") -> str:
    """Return AP of each class, then COCO's twelve numbers, for boxes, masks, or both; all in percent.

    Args:
        metrics: of the same ground truth, at least one.
    """
    first, most, sizes = metrics[0], metrics[0].max_detections, ["small", "medium", "large"]
    ap = ["ap", "ap50", "ap75", "ap_small", "ap_medium", "ap_large"]
    ar = ["ar1", "ar10", "ar_max", "ar_small", "ar_medium", "ar_large"]
    counts = [f"{min(n, most)} detection{'s' * (min(n, most) != 1)}" for n in (1, 10, most)]
    blocks = [_coco_class_table(metrics)]
    for title, columns, names in (("AP (%)", [".50:.95", ".50", ".75"], ap), ("AR (%)", counts, ar)):
        rows = [[NAMES[m.kind], *(_tenth(getattr(m, name)) for name in names)] for m in metrics]
        blocks.append(table([title, *columns, *sizes], rows, "lrrrrrr"))
    legend = (
        f"{first.images:,} images, {first.instances:,} instances. At most {most} detections of a class in "
        "an image; AP and AR: mean over IoU .50:.95 unless it is named; small: below 32x32 pixels, large: "
        "above 96x96."
    )
    return "\n\n".join([*blocks, legend])


def breakdown_table(found: "Breakdown") -> str:
    """Return accuracy in each interval of a quantity, in percent, with its standard error."""
    rows = [
        [f"{low:g} to {high:g}", count, _tenth(top1), _tenth(error)]
        for low, high, count, top1, error in zip(
            found.edges[:-1], found.edges[1:], found.count, found.top1, found.error, strict=True
        )
    ]
    header = [f"{found.name} ({found.unit})", found.counted, "top-1 (%)", "± (standard error)"]
    return table(header, rows, "lrrr")


def attention_line(use: "AttentionUse") -> str:
    """Return in a line what an evaluation with attention replaced differs by from the one as trained."""
    effect = use.effects[0]
    scores = []
    for name, found in effect.contributions.items():
        own, other = _tenth(use.as_trained[name]), _tenth(effect.scores[name])
        scores.append(f"{TITLES[name]} {other} % against {own} % as trained, {found.negated().text()}")
    where = effect.block or "all blocks"
    return f"attention {effect.how} in {where}: {'; '.join(scores)}, over {use.images:,} images"


def attention_table(use: "AttentionUse") -> str:
    """Return scores with attention replaced in several ways, and what attention contributes over each."""
    header, rows = ["attention", "in"], [["as trained", ""]]
    for name, score in use.as_trained.items():
        header += [f"{TITLES[name]} (%)", "contribution", "95 %"]
        rows[0] += [_tenth(score), "", ""]
    for effect in use.effects:
        row = [effect.how, effect.block or "all blocks"]
        for name in use.as_trained:
            found = effect.contributions[name]
            row += [_tenth(effect.scores[name]), found.mean_text(), found.interval_text()]
        rows.append(row)
    return (
        f"{table(header, rows, 'll' + 'rrr' * len(use.as_trained))}\n\n{use.images:,} images. Contribution: "
        "as trained minus this, in percentage points, with its interval over images. Nothing was retrained."
    )


def _class_tables(metrics: "ClassificationMetrics") -> list[str]:
    """The metrics of a split, and the accuracy of all classes or of the worst ones."""
    row = [metrics.count, percent(metrics.top1), percent(metrics.top5), f"{metrics.loss:.4f}"]
    known = [k for k, accuracy in enumerate(metrics.per_class) if accuracy == accuracy]
    rows = []
    for k in sorted(known, key=lambda k: (metrics.per_class[k], metrics.classes[k]))[:WORST_CLASSES]:
        wrong = {other: count for other, count in enumerate(metrics.confusion[k]) if other != k and count}
        most = max(wrong, key=wrong.__getitem__, default=None)
        taken_for = "" if most is None else f"{metrics.classes[most]} ({wrong[most]})"
        total = sum(metrics.confusion[k])
        rows.append([metrics.classes[k], total, percent(metrics.per_class[k]), taken_for])
    title = "class" if len(known) <= WORST_CLASSES else f"{WORST_CLASSES} worst of {len(known)} classes"
    return [
        table([metrics.counted, "top-1 (%)", "top-5 (%)", "loss"], [row], "rrrr"),
        table([title, metrics.counted, "right (%)", "most often taken for"], rows, "lrrl"),
    ]


def _coco_class_table(metrics: "Sequence[CocoMetrics]") -> str:
    """AP of the classes that the ground truth has, in the order of their ids; the others are named below."""
    by_class = list(zip(*(m.per_class for m in metrics), strict=True))
    known = [entries for entries in by_class if entries[-1].instances]
    absent = [entries[0].name for entries in by_class if not entries[0].instances]
    shown, header = known, ["class", "images", "instances"]
    if len(known) > LISTED_CLASSES:
        shown = sorted(known, key=lambda entries: entries[-1].ap)[:LISTED_CLASSES]
        header[0] = f"{LISTED_CLASSES} lowest of {len(known)} classes"
    for m in metrics:
        header += [f"{NAMES[m.kind]} {score}" for score in ("AP", "AP50", "AR")]
    rows = []
    for entries in shown:
        scores = [_tenth(score) for each in entries for score in (each.ap, each.ap50, each.ar)]
        rows.append([entries[0].name, entries[0].images, entries[0].instances, *scores])
    text = table(header, rows, "lrr" + "rrr" * len(metrics))
    if absent:
        listed = ", ".join(absent[:20]) + (f" and {len(absent) - 20} more" if len(absent) > 20 else "")
        text += f"\n\nnot in the ground truth: {listed}"
    return text


def _tenth(fraction: float) -> str:
    """A fraction as percent with the one decimal that AP is given with."""
    return percent(fraction, 1)
