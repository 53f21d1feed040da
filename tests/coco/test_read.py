"""Reading COCO files: what is in them, what is wrong with them."""

import copy
import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from botvision.coco.annotations import CocoFile
from botvision.coco.read import parse_coco, read_coco
from botvision.io.errors import DataError
from tests.coco.annotation_scene import scene, write_scene

DATA = Path(os.environ.get("BOTVISION_DATA", Path(__file__).parents[3] / "shared" / "data"))


def lines(file: CocoFile, *, fatal: bool = True) -> list[str]:
    return [problem.line for problem in file.problems if problem.fatal == fatal]


def parse(content: dict[str, Any]) -> CocoFile:
    return parse_coco(content, "x.json")


def test_records_are_sorted_by_image_and_categories_by_id() -> None:
    file = parse(scene())
    assert file.problems == []
    assert [tuple(category) for category in file.categories] == [(7, "boat"), (13, "sign"), (90, "kite")]
    annotations = file.annotations
    assert annotations.ids.tolist() == [1, 2, 3, 4]
    assert annotations.categories.tolist() == [0, 2, 0, 1]
    assert annotations.crowd.tolist() == [False, False, True, False]
    assert annotations.first.tolist() == [0, 3, 4, 4]
    assert [p.tolist() for p in annotations.polygons_of(1)] == [
        [[2, 20], [22, 20], [22, 30], [2, 30]],
        [[30, 28], [42, 28], [42, 38], [30, 38]],
    ]
    assert annotations.rle_of(0) == b""
    assert annotations.has_masks


def test_what_is_written_is_what_was_read(tmp_path: Path) -> None:
    path = write_scene(tmp_path)
    file = read_coco(path)
    content = file.to_dict()
    (tmp_path / "again.json").write_text(json.dumps(content))
    assert read_coco(tmp_path / "again.json").to_dict() == content
    wanted = {entry["id"]: entry for entry in scene()["annotations"]}
    for record in content["annotations"]:
        original = wanted[record["id"]]
        if record["iscrowd"]:
            compressed = oracle.frPyObjects(original["segmentation"], 40, 60)
            original["segmentation"] = {"size": [40, 60], "counts": compressed["counts"].decode()}
        assert record == original
    assert content["images"] == scene()["images"]
    assert sorted(content["categories"], key=str) == sorted(scene()["categories"], key=str)


def test_some_images_only() -> None:
    content = parse(scene()).to_dict([1])
    assert [image["id"] for image in content["images"]] == [30]
    assert [record["id"] for record in content["annotations"]] == [4]


def test_two_decimals_come_back_exactly_from_float32() -> None:
    content = scene()
    draws = np.random.default_rng(0)
    polygon = [round(value, 2) for value in (draws.random(400) * 40).tolist()]
    content["annotations"][0]["segmentation"] = [polygon]
    (record,) = [r for r in parse(content).to_dict()["annotations"] if r["id"] == 4]
    assert record["segmentation"] == [polygon]


def test_boxes_alone_are_fine_but_not_among_masks() -> None:
    content = scene()
    for entry in content["annotations"]:
        del entry["segmentation"]
    file = parse(content)
    assert (file.problems, file.annotations.has_masks) == ([], False)
    content = scene()
    content["annotations"][1]["segmentation"] = []
    file = parse(content)
    (line,) = [problem.line for problem in file.problems]
    assert lines(file) == []
    assert "1 of 4 objects have no segmentation, unlike others (annotation 1 of image 500 the first)" in line
    assert file.annotations.ids[file.annotations.objects].tolist() == [2, 4]
    assert file.annotations.ids.tolist() == parse(scene()).annotations.ids.tolist()


BROKEN: list[tuple[str, Any, str, str]] = [
    ("bbox", [100, 5, 10, 10], "box", "lies outside the image of 40 x 60 pixels"),
    ("bbox", [-8, 5, 20, 10], "box", "reaches 8 pixels outside"),
    ("bbox", [5, 5, -3, 10], "box", "negative width or height"),
    ("bbox", [1, 2, 3], "box", "expected four finite numbers"),
    ("bbox", [math.nan, 2, 3, 4], "box", "expected four finite numbers"),
    ("bbox", "5 5 3 10", "box", "expected four finite numbers"),
    ("category_id", 8, "category", "there is no category with id 8"),
    ("iscrowd", 2, "annotation", "iscrowd is 2, expected 0 or 1"),
    ("segmentation", [[1, 2, 3, 4, 5, 6, 7]], "segmentation", "a polygon has 7 numbers, expected pairs"),
    ("segmentation", [[1, 2, 3, 4, 5, math.inf]], "segmentation", "not a finite number"),
    ("segmentation", [[1, 2, 3, 4, 5, "6"]], "segmentation", "not a finite number"),
    ("segmentation", [[1, 2, 3, 4, 5, 1e9]], "segmentation", "far outside the image"),
    ("segmentation", [1, 2, 3, 4, 5, 6], "segmentation", "a polygon is 1, expected a list"),
    ("segmentation", "masks/1.png", "segmentation", "expected polygons or run lengths"),
    ("segmentation", {"size": [60, 40], "counts": [80]}, "segmentation", "expected the image's [40, 60]"),
    ("segmentation", {"size": [40, 60], "counts": [0, 80]}, "segmentation", "fewer than 40 x 60"),
    ("segmentation", {"size": [40, 60], "counts": [0, 80, 9999]}, "segmentation", "exceed"),
    ("segmentation", {"size": [40, 60], "counts": [1.5, "x"]}, "segmentation", "mask: "),
    ("segmentation", {"size": [40, 60], "counts": "~~é"}, "segmentation", "mask: "),
    ("segmentation", {"size": [40, 60], "counts": "PQ"}, "segmentation", "without an end"),
    ("segmentation", {"size": [40, 60], "counts": ""}, "segmentation", "expected run lengths"),
    ("segmentation", {"size": [40, 60]}, "segmentation", "counts are None"),
]  # fmt: skip


LONG: list[tuple[str, str]] = [
    *(("images", key) for key in ("id", "file_name", "height")),
    *(("annotations", key) for key in ("id", "image_id", "category_id", "bbox", "area", "iscrowd")),
]


@pytest.mark.parametrize(("records", "key"), LONG)
def test_a_message_quotes_a_long_value_in_part(records: str, key: str) -> None:
    content = scene()
    content[records][1][key] = ["a long story"] * 1000
    lines = [problem.line for problem in parse(content).problems]
    assert any("..." in line for line in lines)
    assert max(map(len, lines)) < 200


@pytest.mark.parametrize(("key", "value", "kind", "words"), BROKEN)
def test_a_broken_annotation_is_named_and_left_out(key: str, value: object, kind: str, words: str) -> None:
    content = scene()
    content["annotations"][1][key] = value
    file = parse(content)
    (problem,) = [problem for problem in file.problems if problem.fatal]
    assert (problem.kind, problem.image_id, problem.annotation_id) == (kind, 500, 1)
    assert problem.line.startswith("x.json: annotation 1 of image 500: ")
    assert words in problem.line
    assert "\n" not in problem.line
    assert (1 in file.annotations.ids) == ("reaches 8" in words)


def test_a_box_that_reaches_far_outside_is_clipped_and_a_little_is_counted() -> None:
    content = scene()
    content["annotations"][1]["bbox"] = [-8, 5, 20, 10]
    content["annotations"][0]["bbox"] = [1, 2, 29.9, 20]  # of an image of 50 x 30
    content["annotations"][2]["bbox"] = [2, 20, 40, 22]  # of one of 40 x 60
    file = parse(content)
    assert file.annotations.boxes.tolist()[:2] == [[0, 5, 12, 10], [2, 20, 40, 22]]
    assert file.annotations.boxes[3].tolist() == [1, 2, 29.9, 20]
    assert [problem.line for problem in file.problems if problem.kind == "clipped"] == [
        "x.json: 2 boxes reach up to 2.0 pixels outside the image (annotation 4 of image 30 the first): "
        "clipped for training, measured as in the file"
    ]


@pytest.mark.parametrize(
    ("box", "size", "fatal", "counted"),
    [
        ([-2, 1, 9, 9], (100, 100), False, True),
        ([91, 1, 11, 9], (100, 100), False, True),
        ([-2.2, 1, 9, 9], (100, 100), True, False),
        ([91, 1, 11.2, 9], (100, 100), True, False),
        ([1, 91, 9, 11.2], (100, 100), True, False),
        ([509.3, 1, 4.7, 9], (512, 512), False, True),  # 509.3 + 4.7 - 512 is a hair more than 2
        ([-9, 1, 20, 9], (100, 1000), False, True),  # a hundredth of the width
        ([-11, 1, 20, 9], (100, 1000), True, False),
        ([1, -9, 20, 20], (100, 1000), True, False),  # not of the height
        ([1, 1, 99.05, 9], (100, 100), False, False),  # rounded
    ],
)
def test_how_far_outside_a_box_may_reach(
    box: list[float], size: tuple[int, int], fatal: bool, counted: bool
) -> None:
    content = scene()
    content["images"] = [{"id": 500, "file_name": "a.png", "height": size[0], "width": size[1]}]
    content["annotations"] = [{**content["annotations"][1], "bbox": box, "segmentation": []}]
    file = parse(content)
    assert bool(lines(file)) == fatal
    assert [problem.kind for problem in file.problems if not problem.fatal] == ["clipped"] * counted


def test_what_has_no_area_stays_for_evaluation_alone() -> None:
    content = scene()
    content["annotations"][1]["bbox"] = [5, 5, 0, 10]
    content["annotations"][2] |= {"segmentation": {"size": [40, 60], "counts": [2400]}}
    file = parse(content)
    assert [(p.kind, p.annotation_id, p.fatal) for p in file.problems] == [
        ("degenerate", 1, False),
        ("degenerate", 2, False),
    ]
    assert file.annotations.ids.tolist() == [1, 2, 3, 4]
    assert file.annotations.degenerate.tolist() == [True, True, False, False]
    assert file.annotations.objects.tolist() == [False, False, False, True]
    first, second, *_ = file.to_dict()["annotations"]
    assert (first["bbox"], first["area"]) == ([5, 5, 0, 10], 200)
    assert first["segmentation"] == scene()["annotations"][1]["segmentation"]
    assert oracle.decode(second["segmentation"]).sum() == 0


def test_a_box_without_area_may_lack_its_mask() -> None:
    for segmentation in ([], [[5, 5, 5, 15]]):
        content = scene()
        content["annotations"][1] |= {"bbox": [5, 5, 0, 10], "segmentation": segmentation}
        del content["annotations"][1]["area"]
        file = parse(content)
        assert lines(file) == []
        (first, *_) = file.to_dict()["annotations"]
        assert (first["bbox"], first["area"]) == ([5, 5, 0, 10], 0)
        assert oracle.decode(first["segmentation"]).shape == (40, 60)
        assert oracle.decode(first["segmentation"]).sum() == 0


def test_box_and_mask_in_different_places_are_noted() -> None:
    content = scene()
    content["annotations"][1]["bbox"] = [35, 25, 20, 10]
    file = parse(content)
    assert lines(file) == []
    assert (
        "annotation 1 of image 500: bbox and the box around the mask overlap by 0%"
        in lines(file, fatal=False)[0]
    )


def test_area_is_taken_from_the_mask_where_it_lacks_and_else_as_stated() -> None:
    content = scene()
    content["annotations"][2]["bbox"] = [2, 20, 40, 20]
    for place, area in ((1, "large"), (2, None), (3, 0)):
        content["annotations"][place]["area"] = area
    del content["annotations"][0]["area"]
    file = parse(content)
    assert dict(zip(file.annotations.ids.tolist(), file.annotations.areas.tolist(), strict=True)) == {
        1: 200.0, 2: 320.0, 3: 0.0, 4: 200.0,
    }  # fmt: skip
    where = "x.json: annotation {} of image 500: area is {}".format
    assert lines(file, fatal=False) == [
        where(1, "'large', 200 is taken instead"),
        where(3, "0, not the 80 that it covers: evaluation by size goes by that"),
    ]


@pytest.mark.parametrize("number", [-1, 2**63, 1.5, True, "one", "-1"])
def test_ids_that_an_evaluation_cannot_use_are_broken(number: Any) -> None:
    content = scene()
    content["categories"][0]["id"] = number
    file = parse(content)
    assert lines(file)[0] == "x.json: categories[0]: expected an id (a whole number from 0) and a name"
    content = scene()
    content["images"][2]["id"] = number
    file = parse(content)
    assert lines(file) == [f"x.json: images[2]: id is {number!r}, expected a whole number from 0"]


def test_ids_that_occur_twice_or_lead_nowhere() -> None:
    content = scene()
    content["annotations"][3]["id"] = 1
    content["annotations"][0]["image_id"] = 31
    content["images"].append(dict(content["images"][2], height=99))
    content["categories"].append({"id": 7, "name": "ship"})
    assert lines(parse(content)) == [
        "x.json: category 7: the id occurs twice (boat, ship)",
        "x.json: image 77: the id occurs twice",
        "x.json: annotation 4 of image 31: there is no image with id 31",
        "x.json: annotation 1 of image 500: the id occurs twice",
    ]


def test_annotations_of_a_broken_image_go_with_it_without_a_word_each() -> None:
    content = scene()
    content["images"][0]["height"] = 0
    file = parse(content)
    (line,) = lines(file)
    assert line == "x.json: image 500: height x width is 0 x 60, expected two whole numbers above 0"
    assert file.annotations.ids.tolist() == [4]


def test_categories_of_validation_are_those_of_training() -> None:
    train = parse(scene())
    content = scene()
    content["categories"] = [{"id": 90, "name": "kite"}, {"id": 7, "name": "yacht"}]
    file = parse_coco(content, "val.json", train.categories)
    assert file.categories == train.categories
    assert lines(file) == ["val.json: category 7 is yacht, but boat in the training data"]


def test_categories_of_other_ids_are_matched_by_name() -> None:
    """Validation numbered anew: labels follow the names, and so does what is evaluated."""
    train = parse(scene())
    content, names = scene(), dict(train.categories)
    new = {90: 7, 7: 12, 13: 13}
    content["categories"] = [
        {"id": new[number], "name": f" {name.upper()}"} for number, name in names.items()
    ]
    for record in content["annotations"]:
        record["category_id"] = new[record["category_id"]]
    file = parse_coco(content, "val.json", train.categories)
    assert file.categories == train.categories
    assert file.to_dict()["annotations"] == train.to_dict()["annotations"]
    line = "val.json: annotations whose category has another id in training are matched by its name"
    assert [p.line for p in file.problems] == [f"{line} (3 of them)"]
    content["categories"] = [{"id": 12, "name": "boat"}, {"id": 7, "name": "plane"}]
    file = parse_coco(content, "val.json", train.categories)
    note = file.problems[-1].line
    assert lines(file) == [
        "val.json: annotation 4 of image 30: there is no category with id 13",
        "val.json: annotation 2 of image 500: category 7 (plane) is not among those of the training data",
    ]
    assert note == f"{line} (2 of them)"
    assert {file.categories[k].name for k in file.annotations.categories} == {"boat"}


def test_a_mask_outside_its_image_has_no_area() -> None:
    content = scene()
    record = next(r for r in content["annotations"] if isinstance(r.get("segmentation"), list))
    image = next(i for i in content["images"] if i["id"] == record["image_id"])
    record["segmentation"] = [[200, 200, 300, 200, 300, 300]]
    file = parse(content)
    (problem,) = file.problems
    assert (problem.kind, problem.fatal) == ("degenerate", False)
    assert problem.line == (
        f"x.json: annotation {record['id']} of image {image['id']}: the mask has no area within the image of "
        f"{image['height']} x {image['width']} pixels (height x width)"
    )
    assert file.annotations.ids[file.annotations.degenerate].tolist() == [record["id"]]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "not valid JSON"),
        ("[]", "holds a list"),
        ('{"images": [], "categories": []}', "no list 'annotations'"),
        ('{"images": {}, "annotations": [], "categories": []}', "no list 'images'"),
        ("\x00\xff", "not valid JSON"),
    ],
)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(text.encode("latin-1"))
    with pytest.raises(DataError, match=words):
        read_coco(path)
    with pytest.raises(DataError, match="no such file"):
        read_coco(tmp_path / "none.json")


JUNK = [None, "x", -1, 0, 1.5, math.nan, math.inf, 10**30, [], {}, [[]], [None], True, "", 1e300]


@settings(max_examples=150, deadline=None)
@given(st.data())
def test_junk_anywhere_never_ends_in_anything_but_problems(data: st.DataObject) -> None:
    content: Any = scene()
    for _ in range(data.draw(st.integers(1, 4))):
        node = content
        while True:
            keys = list(node) if isinstance(node, dict) else range(len(node))
            if not keys:
                break
            key = data.draw(st.sampled_from(list(keys)))
            if not isinstance(node[key], dict | list) or (node is not content and data.draw(st.booleans())):
                node[key] = copy.deepcopy(data.draw(st.sampled_from(JUNK)))
                break
            node = node[key]
    file = parse(content)
    json.dumps(file.to_dict(), allow_nan=False)
    file.annotations.mask_extents(file.images)
    assert all("\n" not in problem.line for problem in file.problems)


def test_an_annotation_takes_as_much_memory_as_stated() -> None:
    arrays = parse(scene()).annotations
    assert arrays.nbytes == sum(getattr(arrays, name).nbytes for name in vars(arrays))
    fixed = 8 + 4 + 4 + 32 + 8 + 1 + 1 + 8 + 8
    assert arrays.nbytes - arrays.coordinates.nbytes - arrays.counts.nbytes <= fixed * 4 + 8 * (4 + 3 + 4)


@pytest.mark.skipif(not (DATA / "coco").is_dir(), reason="no shared/data/coco")
@pytest.mark.parametrize("split", ["train", "val"])
def test_real_annotations_are_sound_and_come_back(split: str) -> None:
    path = DATA / "coco" / "annotations" / f"instances_{split}2017.json"
    original, file = json.loads(path.read_bytes()), read_coco(path)
    assert file.problems == []
    wanted = {entry["id"]: entry for entry in original["annotations"]}
    found = file.to_dict()
    assert len(found["annotations"]) == len(wanted)
    for record in found["annotations"]:
        entry = wanted[record["id"]]
        assert {key: record[key] for key in ("image_id", "category_id", "bbox", "area", "iscrowd")} == {
            key: entry[key] for key in ("image_id", "category_id", "bbox", "area", "iscrowd")
        }
        if not record["iscrowd"]:
            assert record["segmentation"] == entry["segmentation"]
