"""The layers that know the classes, taken over from other weights by the classes' names."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

_SHOWN = 5


class ClassNames(NamedTuple):
    """What the rows of some layers stand for.

    Attributes:
        theirs: names of the classes in weights (K), in the order of the rows.
        ours: names in the model.
        layers: modules whose tensors have as many rows for each class, one class after the other.
        before: rows that come first and stand for no class: 1 where that is the background.
    """

    theirs: Sequence[str]
    ours: Sequence[str]
    layers: Sequence[str]
    before: int = 0


class Matched(NamedTuple):
    """Weights whose rows are in the model's order.

    Attributes:
        stored: all weights.
        adapted: names of those whose rows were moved, or are in part the model's own.
        others: names of those that were dropped: no class is the same.
        line: what was done; empty if nothing.
    """

    stored: Mapping[str, Tensor]
    adapted: list[str]
    others: list[str]
    line: str


def match_classes(
    own: Mapping[str, Tensor], stored: Mapping[str, Tensor], names: ClassNames | None
) -> Matched:
    """Return weights for a model of the same number of classes, each class's rows in its place there."""
    if names is None or list(names.theirs) == list(names.ours) or len(names.theirs) != len(names.ours):
        return Matched(stored, [], [], "")
    rows = len(names.ours) + names.before
    tensors = [
        name
        for name, value in own.items()
        if name.rpartition(".")[0] in names.layers and name in stored and stored[name].shape == value.shape
    ]
    if not tensors:
        return Matched(stored, [], [], "")
    place = {name: row for row, name in enumerate(names.theirs)}
    shared = [name for name in names.ours if name in place]
    others = [name for name in names.ours if name not in place]
    if not shared:
        rest = {name: value for name, value in stored.items() if name not in tensors}
        line = f"classes: the weights know {_some(names.theirs)}, none of {_some(names.ours)}"
        return Matched(rest, [], tensors, f"{line}; layers of classes begin anew")
    moved: dict[str, Tensor] = {}
    for tensor in tensors:
        value = own[tensor].detach().clone().reshape(rows, -1)
        theirs = stored[tensor].to(value).reshape(rows, -1)
        value[: names.before] = theirs[: names.before]
        for row, name in enumerate(names.ours, names.before):
            if name in place:
                value[row] = theirs[names.before + place[name]]
        moved[tensor] = value.reshape(own[tensor].shape)
    new = f"; new are {_some(others)}" if others else " in another order"
    return Matched({**stored, **moved}, tensors, [], f"classes: {_some(shared)} are taken over by name{new}")


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
