"""One set of rules for training, ground truth and results; broken alone is broken among others."""

import copy
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hotcoco import mask as codec
from hypothesis import given, settings
from hypothesis import strategies as st

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.masks import polygon_faults, rle_areas
from botvision.coco.read import parse_coco
from botvision.coco.truth import Kind, read_truth
from botvision.io.errors import DataError
from tests.coco.scenes import crowds_as_rle, random_scene, scene_of_boxes

SQUARE = codec.encode(np.ones((4, 6), np.uint8, order="F"))["counts"].decode()


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
    "id": 1, "image_id": 1, "category_id": 2, "bbox": [0, 0, 5, 4], "area": 20, "iscrowd": 0,
    "segmentation": [[0, 0, 5, 0, 5, 4]],
}  # fmt: skip
RESULT: Change = {
    "image_id": 1, "category_id": 2, "bbox": [0, 0, 5, 5.5], "score": 1,
    "segmentation": {"size": [4, 6], "counts": SQUARE},
}  # fmt: skip
EVERYWHERE: list[Change] = [
    {"image_id": 9}, {"image_id": True}, {"image_id": 1.5}, {"image_id": None}, {"image_id": "one"},
    {"category_id": "2x"}, {"category_id": -1}, {"bbox": "0055"}, {"bbox": [0, 0, 5]},
    {"bbox": [0, 0, -5, 5]},
    {"bbox": ["0", "0", "5", "5"]}, {"bbox": [0, 0, math.nan, 5]}, {"bbox": [0, 0, 10**400, 5]},
    {"bbox": [[0], [0], [5], [5]]}, {"bbox": np.zeros(4)},
]  # fmt: skip
MASKS: list[Any] = [
    "", [[0, 0, 5, 0, 5]], [[0, 0, 5, 0, 5, 5, 1]],
    [[0, 0, 5, 0, 5, "5"]],
    [[0, 0, 5, 0, 5, math.inf]], [[0, 0, math.inf, 0, 5, -math.inf]], [[0, 0, 5, 0, 5, 10**400]],
    [[0, 0, 5, 0, 5, None]], [[[0, 0], [5, 0], [5, 5]]],
    {"size": [6, 4], "counts": SQUARE}, {"size": [4, 6]}, {"counts": SQUARE},
    {"size": None, "counts": SQUARE},
    {"size": [4, 6], "counts": None}, {"size": [4, 6], "counts": ""}, {"size": [4, 6], "counts": "é"},
    {"size": [4, 6], "counts": []}, {"size": [4, 6], "counts": [25]}, {"size": [4, 6], "counts": [23]},
    {"size": [4, 6], "counts": [-1, 25]}, {"size": [4, 6], "counts": [0.0, 24]},
    {"size": [4, 6], "counts": [False, 24]},
    {"size": [4, 6], "counts": SQUARE[:-1]}, {"size": [4, 6], "counts": SQUARE + "1"},
]  # fmt: skip


IMAGE = {"id": 1, "height": 4, "width": 6, "file_name": "a.png"}


def file_of(*annotations: Change) -> dict[str, Any]:
    records = [{**record, "id": number} for number, record in enumerate(annotations, 1)]
    return {"images": [IMAGE], "annotations": records, "categories": [{"id": 2, "name": "thing"}]}


def refused(change: Change) -> None:
    """The second of three annotations is named: as ground truth of boxes or of masks, and for training."""
    content = file_of(ANNOTATION, {**ANNOTATION, **change}, ANNOTATION)
    try:
        line = read_truth(content).no_masks
    except DataError as error:
        line = str(error)
    assert line is not None
    assert line.startswith("ground truth: annotation 2")
    (problem,) = [found for found in parse_coco(content, "x.json").problems if found.kind != "note"]
    if problem.kind != "area":
        line = line.replace("ground truth", "x.json")
        assert problem.line in (line, f"{line}, unlike others")
    assert problem.annotation_id == 2


ELSEWHERE: list[Change] = [
    {"category_id": 1}, {"bbox": None, "segmentation": None}, {"bbox": None, "segmentation": [[0, 0, 5, 0]]}
]  # fmt: skip


@pytest.mark.parametrize("change", [*EVERYWHERE, *ELSEWHERE, *({"segmentation": mask} for mask in MASKS)])
def test_a_broken_annotation_is_broken_for_all(change: Change):
    content = file_of(ANNOTATION)
    assert read_truth(content).no_masks is None
    assert parse_coco(content, "x.json").problems == []
    refused(change)


@pytest.mark.parametrize("ring", [[], [1, 1], [0, 0, 1, 1]])
def test_a_polygon_too_short_is_left_out_beside_another(ring: list[float]):
    square = ANNOTATION["segmentation"]
    file = parse_coco(file_of({**ANNOTATION, "segmentation": [ring, *square]}), "x.json")
    line = "x.json: polygons of fewer than 3 points are left out, beside others of their object (1 of them)"
    assert [(found.kind, found.line, found.fatal) for found in file.problems] == [("note", line, False)]
    assert file.annotations.segmentations() == [square]
    truth = read_truth(file_of({**ANNOTATION, "segmentation": [ring, *square]}))
    assert truth.no_masks is None
    assert truth.notes == [line.replace("x.json", "ground truth")]


def test_an_object_of_polygons_too_short_has_no_area():
    content = file_of(ANNOTATION, {**ANNOTATION, "segmentation": [[0, 0, 5, 4], [1, 1]]})
    file = parse_coco(content, "x.json")
    assert file.annotations.degenerate.tolist() == [False, True]
    assert {found.kind for found in file.problems} == {"degenerate", "note"}
    assert not any(found.fatal for found in file.problems)
    assert read_truth(content).no_masks is None
    metrics = evaluate_coco(content, [RESULT], "segm")
    assert metrics.instances == 2


@pytest.mark.parametrize("mask", [None, [], {}])
def test_few_objects_without_a_mask_are_not_trained_on_and_most_are_refused(mask: Any):
    bare = {**ANNOTATION, "segmentation": mask}
    file = parse_coco(file_of(ANNOTATION, bare, ANNOTATION), "x.json")
    assert file.annotations.objects.tolist() == [True, False, True]
    (line,) = [p.line for p in file.problems if "no segmentation" in p.line]
    assert line.startswith("x.json: 1 of 3 objects have no segmentation, unlike others (annotation 2 of im")
    assert not any(found.fatal for found in file.problems)
    assert len(file.to_dict()["annotations"]) == 3
    assert "no segmentation" in str(read_truth(file_of(ANNOTATION, bare)).no_masks)
    refused = [p for p in parse_coco(file_of(bare, bare, ANNOTATION), "x.json").problems if p.fatal]
    assert [p.line.split(": ", 2)[2] for p in refused] == ["no segmentation, unlike others"] * 2


@pytest.mark.parametrize("area", ["20", math.inf, math.nan, True, [20]])
def test_an_area_that_is_no_number_is_refused_as_truth_and_replaced_in_training(area: Any):
    refused({"area": area})
    (problem,) = parse_coco(file_of({**ANNOTATION, "area": area}), "x.json").problems
    assert (problem.fatal, "is taken instead" in problem.line) == (False, True)


@pytest.mark.parametrize("change", [*EVERYWHERE, {"bbox": None}, {"score": math.nan}, {"score": None}, *(
    {"segmentation": mask} for mask in [*MASKS, [[0, 0, 5, 0, 5, 5]]]
)])  # fmt: skip
def test_a_broken_result_is_named(change: Change):
    kind: Kind = "segm" if "segmentation" in change else "bbox"
    evaluate_coco(file_of(ANNOTATION), [RESULT] * 3, kind)
    missing = {key: value for key, value in RESULT.items() if key not in change}
    for broken in ({**RESULT, **change}, missing):
        with pytest.raises(DataError, match=r"^results: result 2: \S+.*"):
            evaluate_coco(file_of(ANNOTATION), [RESULT, broken, RESULT], kind)


def test_nothing_is_sound():
    assert read_truth(scene_of_boxes([])).no_masks is None
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


def pixels(text: str) -> int | None:
    """What the run lengths cover, told letter by letter; None if they are broken."""
    runs: list[int] = []
    run = shift = 0
    for letter in text:
        value = ord(letter) - 48
        if not 0 <= value < 64 or shift == 35:
            return None
        run, shift = run | (value & 31) << shift, shift + 5
        if value < 32:
            run -= 1 << shift if value & 16 else 0
            runs.append(run + (runs[-2] if len(runs) > 2 else 0))
            run = shift = 0
    return sum(runs) if runs and not shift and min(runs) >= 0 else None


@settings(max_examples=400, deadline=None)
@given(counts())
def test_compressed_runs_pass_among_others_if_they_fill_their_mask(mask: tuple[tuple[int, int], str]):
    (height, width), text = mask
    fine = {"size": [4, 6], "counts": SQUARE}
    masks = [fine, {"size": [height, width], "counts": text}, fine]
    if pixels(text) == height * width:
        assert rle_areas(masks).tolist() == codec.area(masks).tolist()
    else:
        with pytest.raises(DataError):
            rle_areas(masks)


@pytest.mark.parametrize("letters", range(1, 15))
@pytest.mark.parametrize("runs", [[7, 60, 5, 40, 9], [7, 40, 5, 60, 9]])
def test_padded_runs_are_read_right_or_refused(runs: list[int], letters: int):
    plain = encoded(runs)
    place = len(encoded(runs[:3]))  # of the fourth run, below 0 as a difference, or above
    written = len(encoded(runs[:4])) - place
    text = padded(plain, place, max(letters - written, 0))
    mask = {"size": [1, sum(runs)], "counts": text}
    if letters <= 7:
        assert (
            rle_areas([mask]).tolist()
            == [runs[1] + runs[3]]
            == codec.area([{**mask, "counts": plain}]).tolist()
        )
    else:
        with pytest.raises(DataError, match="a run of more than 7 letters"):
            rle_areas([mask])


@settings(max_examples=200, deadline=None)
@given(st.lists(st.lists(st.one_of(st.integers(), st.floats()), max_size=9), max_size=3))
def test_polygons_pass_among_others_if_they_pass_alone(rings: list[list[float]]):
    sizes = np.array([[40, 60]] * 3)
    square: list[list[float]] = [[0, 0, 9, 0, 9, 9, 0, 9]]
    fine = all(len(ring) in (6, 8) and all(-1060 <= value <= 2120 for value in ring) for ring in rings)
    assert (1 not in polygon_faults({0: square, 1: rings, 2: square}, sizes)) == fine
    assert (polygon_faults({1: rings}, sizes) == {}) == fine
