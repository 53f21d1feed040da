"""Studies made up for tests, with files of single images where a test wants them."""

from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import numpy as np

from botvision.metrics.predictions import Predictions, save_predictions
from botvision.studies.outcome import Arm, Evaluation, Outcome, RunCost, SeedRun
from botvision.studies.spec import Axis, Claim, Metric

SIZES = (24.0, 32.0, 48.0)
EDGES = (12.8, 19.2, 25.6, 38.4, 57.6, 76.8, 112.0)  # pixels


def run(seed: int, scores: dict[str, float], folder: Path = Path("runs/nowhere"), **changes) -> SeedRun:
    cost = RunCost(1_500_000, 467_000_000, 120.5, 800.0, 3600.0)
    return replace(SeedRun(seed, folder, scores, cost, images=100), **changes)


def outcome_of(*arms: Arm, metric: str = "top1", **changes) -> Outcome:
    """A study of these arms and nothing else."""
    return Outcome("cifar", "t", "q", "cpu", arms, {metric: Metric(metric)}, **changes)


def cifar(top1: dict[str, list[float]], folder: Path = Path("runs"), **changes) -> Outcome:
    """A study of two arms or more; the first one is the baseline, the second one is said to be better."""
    arms = []
    for k, (name, values) in enumerate(top1.items()):
        runs = []
        for seed, value in enumerate(values):
            curve = tuple(
                {"epoch": e, "train_loss": 2.0 / e, "val_loss": 2.1 / e, "val_top1": value * e / 3}
                for e in (1.0, 2.0, 3.0)
            )
            places = tuple(Evaluation("size", at, {"top1": value - abs(at - 32) / 200}, 100) for at in SIZES)
            cost = RunCost(
                1_500_000 - 400_000 * k, 467_000_000 + 30_000_000 * k, 120.5 + 9 * k, 800.0, 3600.0
            )
            runs.append(run(seed, {"top1": value}, folder / f"{name}-s{seed}", curve=curve,
                            evaluations=places, cost=cost))  # fmt: skip
        arms.append(
            Arm(
                name,
                name.upper(),
                tuple(runs),
                None if k == 0 else next(iter(top1)),
                settings={"model.name": f"{name}14"},
                trained_at={"size": 32.0},
                published={"top1": 0.93 + 0.01 * k},
                source="slides, page 12",
            )
        )
    first, second, *_ = [*top1, *top1]
    claims = ()
    if len(top1) > 1:
        claims = (Claim("BoTNet is slightly better.", second, first, ("top1",), "slides, page 12"),)
    outcome = Outcome(
        name="cifar", title="BoTNet on CIFAR-10", question="Is it better?", scale="cpu",
        arms=tuple(arms), metrics={"top1": Metric("top-1", 0.1)},
        axes={"size": Axis("Image size (pixels)", "data.image_size")}, claims=claims,
        common={"data": "cifar10", "epochs": "3"}, environment={"hardware": "a CPU, 1 thread"},
        commands=("botvision study cifar --scale cpu",),
    )  # fmt: skip
    return replace(outcome, **changes)


def by_distance(top1: dict[str, list[tuple[float, ...]]], folder: Path) -> Outcome:
    """A study with an axis of intervals, six scores a seed, and files of 100 images for each of them."""
    found = cifar({name: [sum(row) / len(row) for row in rows] for name, rows in top1.items()}, folder)
    groups = len(EDGES) - 1
    group, number = np.divmod(np.arange(100 * groups, dtype=np.int32), np.int32(100))
    arms = []
    for arm in found.arms:
        runs = []
        for each, row in zip(arm.runs, top1[arm.name], strict=True):
            path = each.folder / "predictions.npz"
            path.parent.mkdir(parents=True, exist_ok=True)
            wrong = number >= np.round(100 * np.array(row))[group]
            save_predictions(Predictions(wrong.astype(np.int32), np.zeros_like(group), group), path)
            table = each.folder / "eval.json"
            places = tuple(
                Evaluation("distance", (a + b) / 2, {"top1": row[k]}, 100, f"{a:g} to {b:g}", table, k)
                for k, (a, b) in enumerate(pairwise(EDGES))
            )
            runs.append(replace(each, evaluations=places))
        arms.append(replace(arm, runs=tuple(runs), trained_at={}))
    axis = Axis("Distance to the mark (pixels)", table="top1_by_distance")
    return replace(found, name="far", arms=tuple(arms), axes={"distance": axis})


def keep_predictions(outcome: Outcome, images: int = 100) -> None:
    """Write predictions.npz of all runs: the first images are the right ones."""
    target = np.arange(images, dtype=np.int32) % 10
    for arm in outcome.arms:
        for each in arm.runs:
            each.folder.mkdir(parents=True, exist_ok=True)
            right = np.arange(images) < round(each.scores["top1"] * images)
            predicted = np.where(right, target, (target + 1) % 10).astype(np.int32)
            save_predictions(Predictions(predicted, target), each.folder / "predictions.npz")
