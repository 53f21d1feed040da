"""The layers that know the classes, taken over from other weights by the classes' names."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor

_SHOWN = 5


class NamedWeights(dict[str, Tensor]):
    """A state dict that comes with the names of its classes, as a file has them in the JSON beside it."""

    def __init__(self, tensors: Mapping[str, Tensor], classes: Sequence[str]) -> None:
        super().__init__(tensors)
        self.classes = list(classes)


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
    """Return weights for a model of its classes, each class's rows in its place there.

    Names agree as they are written; else, where that is unambiguous, without regard to case, `_` and `-`.
    """
    if names is None or list(names.theirs) == list(names.ours):
        return Matched(stored, [], [], "")
    counts = [len(side) + names.before for side in (names.theirs, names.ours)]
    tensors = [
        name
        for name, value in own.items()
        if name.rpartition(".")[0] in names.layers and name in stored and _fit(stored[name], value, *counts)
    ]
    if not tensors:
        return Matched(stored, [], [], "")
    place = _places(names)
    shared = [name for name in names.ours if name in place]
    others = [name for name in names.ours if name not in place]
    if not shared:
        rest = {name: value for name, value in stored.items() if name not in tensors}
        line = f"classes: the weights know {_some(names.theirs)}, none of {_some(names.ours)}"
        return Matched(rest, [], tensors, f"{line}; layers of classes begin anew")
    moved: dict[str, Tensor] = {}
    for tensor in tensors:
        value = own[tensor].detach().clone().reshape(counts[1], -1)
        theirs = stored[tensor].to(value).reshape(counts[0], -1)
        value[: names.before] = theirs[: names.before]
        for row, name in enumerate(names.ours, names.before):
            if name in place:
                value[row] = theirs[names.before + place[name]]
        moved[tensor] = value.reshape(own[tensor].shape)
    same = counts[0] == counts[1]
    new = f"; new are {_some(others)}" if others else " in another order" if same else ""
    return Matched({**stored, **moved}, tensors, [], f"classes: {_some(shared)} are taken over by name{new}")


def _fit(stored: Tensor, own: Tensor, theirs: int, ours: int) -> bool:
    """Whether a stored tensor of `theirs` classes has as many rows for each as one of `ours`."""
    rows = [len(stored) / theirs, len(own) / ours] if stored.ndim and own.ndim else [0.5, 0.5]
    return rows[0] == rows[1] and rows[0].is_integer() and stored.shape[1:] == own.shape[1:]


def _places(names: ClassNames) -> dict[str, int]:
    """The row of each of our classes that the weights know."""
    exact = {name: row for row, name in enumerate(names.theirs)}
    theirs, ours = (Counter(map(_folded, side)) for side in (names.theirs, names.ours))
    folded = {_folded(name): row for row, name in enumerate(names.theirs)}
    found = dict(exact)
    for name in names.ours:
        key = _folded(name)
        if name not in exact and theirs[key] == ours[key] == 1:
            found[name] = folded[key]
    return found


def _folded(name: str) -> str:
    return " ".join(name.casefold().replace("_", " ").replace("-", " ").split())


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")
