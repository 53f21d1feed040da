"""Batches of images with instances from loader processes."""

from pathlib import Path

import torch

from botvision.config.data import DetectionDataConfig
from botvision.data.detection import DetectionBatch, open_detection
from botvision.data.loaders import build_loader
from tests.coco.annotation_scene import write_scene


def same(one: DetectionBatch, other: DetectionBatch) -> bool:
    return (
        torch.equal(one[2], other[2])
        and all(torch.equal(a, b) for a, b in zip(one[0], other[0], strict=True))
        and all(torch.equal(a[key], b[key]) for a, b in zip(one[1], other[1], strict=True) for key in a)
    )


def test_batches_do_not_depend_on_the_number_of_processes_nor_on_an_interruption(tmp_path: Path) -> None:
    write_scene(tmp_path)
    config = DetectionDataConfig(
        root=str(tmp_path), val_is_train=True, image_size=48, scale_jitter=(0.5, 2.0)
    )
    passes = []
    for workers in (0, 2):
        data = open_detection(config, seed=3).train
        loader = build_loader(data, 1, train=True, seed=4, num_workers=workers)
        passes.append([batch for epoch in range(2) for batch in loader.epoch(epoch)])
    assert len(passes[0]) == 6
    assert all(same(a, b) for a, b in zip(*passes, strict=True))

    resumed = build_loader(open_detection(config, seed=3).train, 1, train=True, seed=4)
    assert all(same(a, b) for a, b in zip(resumed.epoch(0, 1), passes[0][1:3], strict=True))
