"""What was found in one image, in a line."""

from collections import Counter
from collections.abc import Sequence
from typing import Any


def ranking(top: Sequence[dict[str, Any]], limit: int = 3) -> str:
    """Return `label 97.1%, label 1.2%` for the first results of a classifier."""
    return ", ".join(f"{entry['label']} {100 * entry['score']:.1f}%" for entry in top[:limit])


def objects_line(detections: Sequence[dict[str, Any]], threshold: float) -> str:
    """Return `2 person, 1 dog (best 97.1%)` for the detections of at least that score."""
    best = max((each["score"] for each in detections), default=None)
    best_of = "" if best is None else f" (best {100 * best:.1f}%)"
    counts = Counter(each["label"] for each in detections if each["score"] >= threshold)
    if not counts:
        return f"nothing found with a score of {100 * threshold:g}% or more{best_of}"
    named = ", ".join(f"{count} {label}" for label, count in counts.most_common(6))
    more = f", and {len(counts) - 6} more classes" if len(counts) > 6 else ""
    return f"{named}{more}{best_of}"
