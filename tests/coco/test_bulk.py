"""Checks of all records at once let pass what the checks one by one let pass, and nothing else."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hotcoco import mask as rle
from hypothesis import given, settings
from hypothesis import strategies as st

from botvision.coco import files as coco_files
from botvision.coco.bulk import are_polygons, rle_areas, usual_annotations, usual_results
from botvision.coco.checks import is_polygon, mask_trouble, size_of
from botvision.coco.evaluate import evaluate_coco
from botvision.coco.files import Kind, load_results, read_truth
from tests.coco.scenes import crowds_as_rle, random_scene, scene_of_boxes

SQUARE = rle.encode(np.ones((4, 6), np.uint8, order="F"))["counts"].decode()


def one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coco_files, "usual_annotations", lambda *_: None)
    monkeypatch.setattr(coco_files, "usual_results", lambda *_, **__: None)


@pytest.mark.parametrize("seed", range(4))
def test_usual_records_come_out_as_from_the_checks_one_by_one(seed: int, monkeypatch: pytest.MonkeyPatch):
    scene = crowds_as_rle(random_scene(seed))
    sizes = {record["id"]: size_of(record) for record in scene.truth["images"]}
    categories = {record["id"] for record in scene.truth["categories"]}
    assert usual_annotations(scene.truth["annotations"], sizes, categories) is not None
    read = read_truth(scene.truth)
    results = {}
    for kind in coco_files.KINDS:
        assert usual_results(scene.results, sizes, categories, kind == "segm") is not None
        results[kind] = load_results(scene.results, read, kind, "results").dataset
    one_by_one(monkeypatch)
    again = read_truth(scene.truth)
    assert again.coco.dataset == read.coco.dataset
    assert again.categories == read.categories
    for kind, usual in results.items():
        alone = load_results(scene.results, again, kind, "results").dataset
        for record, other in zip(usual["annotations"], alone["annotations"], strict=True):
            if kind == "segm":  # whose boxes have no part in anything
                del record["bbox"], other["bbox"]
            assert record == other


@pytest.mark.parametrize("kind", ["bbox", "segm"])
def test_unusual_forms_give_the_same_numbers(kind: Kind):
    scene = crowds_as_rle(random_scene(5))
    usual = evaluate_coco(scene.truth, scene.results, kind)
    odd = copy.deepcopy(scene)
    for record in odd.results[::3]:
        record["bbox"] = tuple(record["bbox"])
        record["segmentation"]["counts"] = record["segmentation"]["counts"].encode()
    for record in odd.truth["annotations"][::3]:
        record["bbox"] = tuple(record["bbox"])
    assert evaluate_coco(odd.truth, odd.results, kind) == usual


Change = dict[str, Any]
ANNOTATION: Change = {
    "id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 5, 5.5], "area": 20, "iscrowd": 0,
    "segmentation": [[0, 0, 5, 0, 5, 5.5]],
}  # fmt: skip
RESULT: Change = {
    "image_id": 1, "category_id": 2, "bbox": [0, 0, 5, 5.5], "score": 1,
    "segmentation": {"size": [4, 6], "counts": SQUARE},
}  # fmt: skip
EVERYWHERE: list[Change] = [
    {"image_id": 9}, {"image_id": True}, {"image_id": 1.0}, {"image_id": None}, {"category_id": 1},
    {"category_id": "2"}, {"bbox": None}, {"bbox": [0, 0, 5]}, {"bbox": [0, 0, -5, 5]}, {"bbox": "0055"},
    {"bbox": ["0", "0", "5", "5"]}, {"bbox": [0, 0, math.nan, 5]}, {"bbox": [0, 0, 10**400, 5]},
    {"bbox": [[0], [0], [5], [5]]}, {"bbox": np.zeros(4)},
]  # fmt: skip
MASKS: list[Any] = [
    None, [], {}, "", [[]], [[0, 0, 1, 1]], [[0, 0, 5, 0, 5]], [[0, 0, 5, 0, 5, 5, 1]],
    [[0, 0, 5, 0, 5, "5"]],
    [[0, 0, 5, 0, 5, math.inf]], [[0, 0, math.inf, 0, 5, -math.inf]], [[0, 0, 5, 0, 5, 10**400]],
    [[0, 0, 5, 0, 5, None]], [(0, 0, 5, 0, 5, 5)], [[[0, 0], [5, 0], [5, 5]]],
    {"size": [6, 4], "counts": SQUARE}, {"size": [4, 6]}, {"counts": SQUARE},
    {"size": None, "counts": SQUARE},
    {"size": [4, 6], "counts": None}, {"size": [4, 6], "counts": ""}, {"size": [4, 6], "counts": "é"},
    {"size": [4, 6], "counts": []}, {"size": [4, 6], "counts": [25]}, {"size": [4, 6], "counts": [23]},
    {"size": [4, 6], "counts": [-1, 25]}, {"size": [4, 6], "counts": [0.0, 24]},
    {"size": [4, 6], "counts": [False, 24]},
    {"size": [4, 6], "counts": SQUARE[:-1]}, {"size": [4, 6], "counts": SQUARE + "1"},
]  # fmt: skip


@pytest.mark.parametrize("change", [*EVERYWHERE, {"area": None}, {"area": "20"}, {"area": math.inf}, *(
    {"segmentation": mask} for mask in MASKS
)])  # fmt: skip
def test_no_annotation_passes_that_would_not_alone(change: Change):
    assert usual_annotations([ANNOTATION] * 3, {1: (4, 6)}, {2}) is not None
    assert usual_annotations([ANNOTATION, {**ANNOTATION, **change}, ANNOTATION], {1: (4, 6)}, {2}) is None
    missing = {key: value for key, value in ANNOTATION.items() if key not in change}
    assert usual_annotations([missing, ANNOTATION], {1: (4, 6)}, {2}) is None
    assert usual_annotations([ANNOTATION], {1: None}, {2}) is None


@pytest.mark.parametrize("change", [*EVERYWHERE, {"score": True}, {"score": math.nan}, {"score": None}, *(
    {"segmentation": mask} for mask in [*MASKS, [[0, 0, 5, 0, 5, 5]]]
)])  # fmt: skip
def test_no_result_passes_that_would_not_alone(change: Change):
    masks = "bbox" not in change
    assert usual_results([RESULT] * 3, {1: (4, 6)}, {2}, masks) is not None
    assert usual_results([RESULT, {**RESULT, **change}, RESULT], {1: (4, 6)}, {2}, masks) is None
    missing = {key: value for key, value in RESULT.items() if key not in change}
    assert usual_results([missing, RESULT], {1: (4, 6)}, {2}, masks) is None
    assert usual_results([{**RESULT, **change}], {1: None}, {2}, masks) is None


def test_nothing_is_usual():
    for found in (usual_annotations([], {}, {2}), usual_results([], {}, {2}, masks=True)):
        assert found is not None
        assert found.masks == []
    assert evaluate_coco(scene_of_boxes([]), [], "segm").instances == 0


def encoded(runs: list[int]) -> str:
    """COCO's compressed run lengths, of any whole numbers."""
    text = ""
    for place, run in enumerate(runs):
        rest, more = run - (runs[place - 2] if place > 2 else 0), True
        while more:
            letter, rest = rest & 31, rest >> 5
            more = rest != (-1 if letter & 16 else 0)
            text += chr(48 + letter + 32 * more)
    return text


def padded(text: str, place: int, times: int) -> str:
    """The same run lengths, one of them with letters that no encoder writes."""
    while ord(text[place]) - 48 & 32:
        place += 1
    last = ord(text[place]) - 48
    filler = 31 if last & 16 else 0
    more = [last + 32, *[filler + 32] * (times - 1), filler] if times else [last]
    return text[:place] + "".join(chr(48 + letter) for letter in more) + text[place + 1 :]


@st.composite
def counts(draw: Callable[[Any], Any]) -> tuple[tuple[int, int], str]:
    """(height, width), and run lengths that fill it, or do after nearly every damage."""
    height, width = draw(st.tuples(st.integers(1, 9), st.integers(1, 9)))
    cuts = sorted(draw(st.lists(st.integers(0, height * width), max_size=6)))
    runs = np.diff([0, *cuts, height * width]).tolist()
    if draw(st.booleans()):
        place = draw(st.integers(0, len(runs) - 1))
        runs[place] += draw(st.sampled_from([-40, -1, 1, 40, 2**31, 2**32, -(2**32)]))
    text = encoded(runs)
    text = padded(
        text, draw(st.integers(0, len(text) - 1)), draw(st.sampled_from([0, 0, 0, 2, 5, 6, 7, 11, 12]))
    )
    if draw(st.booleans()):
        place, letter = draw(st.integers(0, len(text))), draw(st.text("+/05?OPQo_pq~", max_size=1))
        text = text[:place] + letter + text[place + draw(st.integers(0, 1)) :]
    return (height, width), text


@settings(max_examples=400, deadline=None)
@given(counts())
def test_compressed_runs_pass_together_as_alone(mask: tuple[tuple[int, int], str]):
    size, text = mask
    record = {"image_id": 1, "segmentation": {"size": list(size), "counts": text}}
    alone = mask_trouble(record, size, "") is None
    fine = {"size": [4, 6], "counts": SQUARE}
    assert (rle_areas([fine, record["segmentation"], fine], [(4, 6), size, (4, 6)]) is not None) == alone


@pytest.mark.parametrize("letters", range(1, 15))
@pytest.mark.parametrize("runs", [[7, 60, 5, 40, 9], [7, 40, 5, 60, 9]])
def test_padded_runs_are_read_right_or_refused(runs: list[int], letters: int):
    plain = encoded(runs)
    place = len(encoded(runs[:3]))  # of the fourth run, below 0 as a difference, or above
    written = len(encoded(runs[:4])) - place
    text = padded(plain, place, max(letters - written, 0))
    mask = {"size": [1, sum(runs)], "counts": text}
    found, one = (
        rle_areas([mask], [(1, sum(runs))]),
        mask_trouble({"segmentation": mask}, (1, sum(runs)), "it"),
    )
    if letters <= 7:
        assert found is not None
        assert found.tolist() == [runs[1] + runs[3]] == rle.area([{**mask, "counts": plain}]).tolist()
        assert one is None
    else:
        assert found is None
        assert one == f"it: the mask's counts hold a run of {letters} characters, expected at most 7"


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.one_of(st.integers(), st.floats()), max_size=9), max_size=3))
def test_polygons_pass_together_only_if_they_pass_alone(rings: list[list[float]]):
    if are_polygons([rings]):
        assert rings
        assert all(map(is_polygon, rings))
    if all(len(ring) in (6, 8) and all(abs(value) < 1e6 for value in ring) for ring in rings):
        assert are_polygons([rings]) == bool(rings)
