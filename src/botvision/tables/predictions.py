"""What was found in one image, in a line."""

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # for its name alone: it brings torch
    from botvision.coco.instances import Instances


def ranking(top: Sequence[dict[str, Any]], limit: int = 3) -> str:
    """Return `label 97.1%, label 1.2%` for the first results of a classifier."""
    return ", ".join(f"{entry['label']} {100 * entry['score']:.1f}%" for entry in top[:limit])


def objects_line(found: "Instances", classes: Sequence[str], threshold: float) -> str:
    """Return `2 person, 1 dog (best 97.1%)` for the detections of at least that score."""
    best = max(() if found.scores is None else found.scores.tolist(), default=None)
    best_of = "" if best is None else f" (best {100 * best:.1f}%)"
    counts = Counter(classes[label - 1] for label in found.above(threshold).labels)
    if not counts:
        return f"nothing found with a score of {100 * threshold:g}% or more{best_of}"
    named = ", ".join(f"{count} {label}" for label, count in counts.most_common(6))
    more = f", and {len(counts) - 6} more classes" if len(counts) > 6 else ""
    return f"{named}{more}{best_of}"
