"""What is worth knowing about detection data before they are trained on, a line each."""

from collections.abc import Sequence

import numpy as np

from botvision.coco.annotations import CocoFile
from botvision.coco.sides import side_twins
from botvision.config.data import DetectionDataConfig


def mirror_note(classes: Sequence[str], config: DetectionDataConfig) -> str | None:
    """Return one line if training mirrors images although a mirror turns classes into others; else None."""
    twins = side_twins(classes)
    if not twins or not config.mirrors:
        return None
    first, count = min(twins), len(twins) // 2
    more = f" and {count - 1} more" if count > 1 else ""
    return (
        f"left and right are classes of their own ({classes[first]}, {classes[twins[first]]}{more}), "
        "and a mirrored image has the wrong ones: switch mirroring off with --data.flip false"
    )


def crowd_notes(file: CocoFile) -> list[str]:
    """Return a line on categories of which all objects are crowds, if there are any."""
    own, count = file.annotations, len(file.categories)
    crowds = np.bincount(own.categories[own.crowd], minlength=count)
    objects = np.bincount(own.categories[own.objects], minlength=count)
    only = np.flatnonzero((crowds > 0) & (objects == 0))
    if not len(only):
        return []
    names = ", ".join(file.categories[k].name for k in only[:5]) + (", ..." if len(only) > 5 else "")
    which = f"categor{'y' if len(only) == 1 else 'ies'} {names}"
    return [
        f"{file.name}: all annotations of {which} ({crowds[only].sum()}) are crowds (iscrowd 1), "
        "which are never trained on"
    ]


def nothing_usable(file: CocoFile) -> str:
    """Return half a line on a file without a single object to train on."""
    crowds = int(file.annotations.crowd.sum())
    why = f": all {crowds} are crowds (iscrowd 1), which are never trained on" if crowds else ""
    return f"no image has annotations that can be used{why}"
