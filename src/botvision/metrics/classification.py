"""Accuracy, loss and confusion of a classifier."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from botvision.metrics.predictions import Predictions


@dataclass(frozen=True)
class Breakdown:
    """Accuracy by intervals of a quantity of the images, such as a distance.

    Attributes:
        name: of the quantity.
        unit: of the quantity.
        edges: ascending (G+1); interval g begins at edge g and ends before edge g+1.
        count: images in each interval (G).
        right: images in each interval whose highest logit is the right class (G).
        counted: what an image is here called, where it is not one: "arrows", say.
    """

    name: str
    unit: str
    edges: tuple[float, ...]
    count: tuple[int, ...]
    right: tuple[int, ...]
    counted: str = "images"

    @property
    def top1(self) -> tuple[float, ...]:
        """Accuracy in each interval (G), 0..1; not-a-number without images."""
        return tuple(
            right / count if count else math.nan for right, count in zip(self.right, self.count, strict=True)
        )

    @property
    def error(self) -> tuple[float, ...]:
        """Standard error of each accuracy (G), sqrt(p (1 - p) / n): what other images would change."""
        pairs = zip(self.top1, self.count, strict=True)
        return tuple(math.sqrt(p * (1 - p) / n) if n else math.nan for p, n in pairs)

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; not-a-number becomes None."""
        values = {**asdict(self), "top1": self.top1, "error": self.error}
        return {key: _plain(value) for key, value in values.items() if key != "counted"}


@dataclass(frozen=True)
class ClassificationMetrics:
    """Results over a whole split; fractions 0..1.

    Attributes:
        count: images.
        top1: part of images whose highest logit is the right class.
        top5: part of images whose right class is among the five highest; not-a-number with fewer than five
            classes.
        loss: mean cross-entropy in nats, without label smoothing.
        per_class: accuracy of each class (K); not-a-number for classes without images.
        confusion: images by true class (row) and predicted class (column), (K, K).
        classes: names (K).
        breakdown: accuracy by a quantity of the images, where the data have one.
        counted: what an image is here called, where it is not one: "arrows", say.
    """

    count: int
    top1: float
    top5: float
    loss: float
    per_class: tuple[float, ...]
    confusion: tuple[tuple[int, ...], ...]
    classes: tuple[str, ...]
    breakdown: Breakdown | None = None
    counted: str = "images"

    @property
    def score(self) -> float:
        """The number by which epochs of a training are compared, higher is better."""
        return self.top1

    def numbers(self) -> dict[str, float]:
        """Loss, top-1 and top-5 by name; not-a-number for what there is not."""
        return {"loss": self.loss, "top1": self.top1, "top5": self.top5}

    def headline(self) -> str:
        """Return the number that counts, in half a line."""
        return f"top-1 {100 * self.top1:.2f} % on {self.count} {self.counted}"

    def to_dict(self) -> dict[str, Any]:
        """Return plain values for JSON; not-a-number, which JSON lacks, becomes None."""
        values = {k: _plain(v) for k, v in vars(self).items() if k not in ("breakdown", "counted")}
        return values | (
            {f"top1_by_{self.breakdown.name}": self.breakdown.to_dict()} if self.breakdown else {}
        )


class ClassificationEvaluator:
    """Collects batches; holds twelve bytes an image, not logits.

    Attributes:
        not_finite: images with a logit that is NaN or infinite; they have no place in a ranking.
    """

    def __init__(
        self,
        classes: Sequence[str],
        quantity: tuple[str, str, tuple[float, ...]] | None = None,
        counted: str = "images",
    ) -> None:
        """Choose what is counted.

        Args:
            classes: names (K) in the order of the logits.
            quantity: name, unit and edges (G+1) of the quantity by which accuracy is broken down.
            counted: what has a class, in the plural.

        Raises:
            ValueError: edges that do not ascend.
        """
        self.classes, self.quantity, self.counted = tuple(classes), quantity, counted
        edges = () if quantity is None else quantity[2]
        if list(edges) != sorted(set(edges)) or len(edges) == 1:
            raise ValueError(f"the edges of the intervals are {list(edges)}, expected 2 or more, ascending")
        self.edges = torch.tensor(edges, dtype=torch.float64)
        self.reset()

    def reset(self) -> None:
        """Forget everything."""
        self.not_finite, self._in_top5, self._loss = 0, 0, 0.0
        self._said = [torch.empty(0, 3, dtype=torch.int32)]  # predicted and true class, interval

    def update(self, logits: Tensor, targets: Tensor, values: Tensor | None = None) -> None:
        """Add a batch.

        Ties between logits go to the class that comes first.

        Args:
            logits: float (B, K), any device.
            targets: int64 (B,) in 0..K-1.
            values: (B,) of the quantity, where there is one.

        Raises:
            ValueError: if the shapes do not fit the number of classes, or a target or value is out of range.
        """
        k = len(self.classes)
        if logits.shape != (len(targets), k):
            raise ValueError(
                f"logits have shape {tuple(logits.shape)}, expected ({len(targets)}, {k}): images x classes"
            )
        if len(targets) == 0:
            return
        logits, targets = logits.detach().float().cpu(), targets.detach().cpu()
        if int(targets.min()) < 0 or int(targets.max()) >= k:
            raise ValueError(
                f"targets reach from {int(targets.min())} to {int(targets.max())}, expected 0..{k - 1}"
            )
        self.not_finite += int((~logits.isfinite()).any(dim=1).sum())
        ranked = logits.argsort(dim=1, descending=True, stable=True)
        group = torch.zeros_like(targets) if self.quantity is None else self._groups(values, len(targets))
        self._said.append(torch.stack([ranked[:, 0], targets, group], dim=1).int())
        self._in_top5 += int((ranked[:, :5] == targets[:, None]).any(dim=1).sum())
        self._loss += float(F.cross_entropy(logits, targets, reduction="sum"))

    def compute(self) -> ClassificationMetrics:
        """Return the metrics of everything added so far.

        Raises:
            ValueError: if nothing was added, or logits that are not finite were.
        """
        predicted, target, group = torch.cat(self._said).long().T
        count, k = len(target), len(self.classes)
        if count == 0:
            raise ValueError("no images were evaluated, expected at least one")
        if self.not_finite:  # sorting puts NaN first: it would count as a class like any other
            raise ValueError(f"the logits of {self.not_finite} of {count} images are not finite")
        confusion = torch.bincount(target * k + predicted, minlength=k * k).view(k, k)
        right, rows = confusion.diagonal(), confusion.sum(dim=1)
        per_class = right.double() / rows.double()  # 0 / 0 is not-a-number, as promised
        breakdown = None
        if self.quantity is not None:
            all_, correct = (
                tuple(torch.bincount(each, minlength=len(self.edges) - 1).tolist())
                for each in (group, group[predicted == target])
            )
            breakdown = Breakdown(*self.quantity, all_, correct, self.counted)
        return ClassificationMetrics(
            count=count,
            top1=int(right.sum()) / count,
            top5=self._in_top5 / count if k >= 5 else math.nan,
            loss=self._loss / count,
            per_class=tuple(per_class.tolist()),
            confusion=tuple(map(tuple, confusion.tolist())),
            classes=self.classes,
            breakdown=breakdown,
            counted=self.counted,
        )

    def predictions(self) -> Predictions:
        """Return predicted and true class and interval of each image, in the order of their addition."""
        predicted, target, group = torch.cat(self._said).numpy().T
        return Predictions(predicted, target, None if self.quantity is None else group)

    def _groups(self, values: Tensor | None, count: int) -> Tensor:
        """Interval of each value, int64 (B,)."""
        if values is None or values.shape != (count,):
            found = "none" if values is None else tuple(values.shape)
            raise ValueError(f"values of the quantity have shape {found}, expected ({count},)")
        group = torch.bucketize(values.detach().double().cpu(), self.edges, right=True) - 1
        if int(group.min()) < 0 or int(group.max()) >= len(self.edges) - 1:
            raise ValueError(
                f"values of the quantity reach from {float(values.min()):g} to {float(values.max()):g}, "
                f"expected {float(self.edges[0]):g} to below {float(self.edges[-1]):g}"
            )
        return group


def _plain(value: Any) -> Any:  # noqa: ANN401
    if isinstance(value, tuple):
        return [_plain(each) for each in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
