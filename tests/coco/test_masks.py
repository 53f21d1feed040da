"""Masks: run lengths, polygons, boxes, against COCO's own tools."""

from typing import Any

import numpy as np
import pycocotools.mask as oracle
import pytest
import torch

from botvision.coco import masks
from botvision.io.errors import DataError


def blobs(count: int = 7, height: int = 23, width: int = 31) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return (torch.rand(count, height, width, generator=generator) < 0.4).to(torch.uint8)


def test_masks_come_back_from_run_lengths() -> None:
    pixels = blobs()
    rles = masks.encode(pixels)
    assert [rle["size"] for rle in rles] == [[23, 31]] * 7
    assert (masks.decode(rles, (23, 31)) == pixels.numpy()).all()
    assert masks.rle_areas(rles).tolist() == pixels.sum(dim=(1, 2)).tolist()


def test_some_of_many_masks_are_decoded_in_place() -> None:
    pixels = blobs()
    pixels[2, :, :9] = 0
    pixels[3] = 0
    pixels[4, 5:] = 0
    out = np.zeros((9, 23, 31), dtype=np.uint8)
    places = np.array([8, 0, 3, 4, 6, 7, 1])
    masks.decode_into(masks.encode(pixels), out, places)
    assert (out[places] == pixels.numpy()).all()
    assert not out[[2, 5]].any()


@pytest.mark.filterwarnings("ignore:__array__ implementation")
def test_run_lengths_are_those_of_cocos_tools() -> None:
    pixels = blobs()
    for mask, rle in zip(pixels.numpy(), masks.encode(pixels > 0), strict=True):
        plane: Any = np.asfortranarray(mask)
        expected: Any = oracle.encode(plane)
        assert expected["counts"].decode() == rle["counts"]


def test_no_masks_at_all() -> None:
    assert masks.encode(torch.zeros(0, 4, 5)) == []
    assert masks.decode([], (4, 5)).shape == (0, 4, 5)
    assert masks.boxes_of(torch.zeros(0, 4, 5)).shape == (0, 4)
    assert masks.rle_boxes([]).shape == (0, 4)


@pytest.mark.filterwarnings("ignore:__array__ implementation")  # pycocotools on numpy 2
def test_polygons_are_rasterised_as_cocos_tools_do_also_outside_the_frame() -> None:
    draws = np.random.default_rng(1)
    for _ in range(100):
        objects = [
            [(draws.random(2 * draws.integers(3, 8)) * 90 - 30).tolist() for _ in range(draws.integers(1, 4))]
            for _ in range(3)
        ]
        found = masks.decode(masks.polygons_to_rles(objects, (37, 29)), (37, 29))
        for polygons, mask in zip(objects, found, strict=True):
            expected = oracle.decode(oracle.merge(oracle.frPyObjects(polygons, 37, 29)))
            assert (mask == expected).all()


def test_a_box_given_as_a_polygon_covers_exactly_its_pixels() -> None:
    (mask,) = masks.decode(masks.polygons_to_rles([[[2, 1, 6, 1, 6, 4, 2, 4]]], (5, 8)), (5, 8))
    expected = np.zeros((5, 8))
    expected[1:4, 2:6] = 1
    assert (mask == expected).all()


def test_boxes_of_masks_by_hand() -> None:
    pixels = torch.zeros(3, 6, 9, dtype=torch.uint8)
    pixels[0, 2, 3] = 1
    pixels[1, 1:4, 5:] = 1
    expected = [[3, 2, 4, 3], [5, 1, 9, 4], [0, 0, 0, 0]]
    assert masks.boxes_of(pixels).tolist() == expected
    assert masks.rle_boxes(masks.encode(pixels)).tolist() == expected


def test_plain_run_lengths_are_compressed() -> None:
    counts = masks.compress([3, 4, 13], (4, 5))
    assert masks.decode([{"size": [4, 5], "counts": counts}], (4, 5))[0].T.reshape(-1).tolist() == (
        [0] * 3 + [1] * 4 + [0] * 13
    )


@pytest.mark.parametrize("counts", [b"34", b"34P1", b"\xff\x00", b"abc"])
def test_run_lengths_of_another_size_are_refused(counts: bytes) -> None:
    assert masks.rle_areas([{"size": [4, 5], "counts": b"34="}]).tolist() == [4]
    with pytest.raises(DataError):
        masks.rle_areas([{"size": [4, 5], "counts": counts}])
