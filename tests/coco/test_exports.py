"""What label tools and home-made scripts write: sound, but not as COCO has it; read right, and said."""

import copy
from typing import Any

import pytest
from hotcoco import mask as codec

from botvision.coco.evaluate import evaluate_coco
from botvision.coco.read import parse_coco
from botvision.coco.results import of_other_categories
from botvision.coco.truth import KINDS, Kind, read_truth
from tests.coco.annotation_scene import scene
from tests.coco.scenes import random_scene, scene_of_boxes


def notes(content: dict[str, Any]) -> list[str]:
    """Lines about the whole file; there must be no other fault."""
    problems = parse_coco(content, "x.json").problems
    assert not [problem.line for problem in problems if problem.fatal]
    return [problem.line for problem in problems if problem.kind == "note"]


def test_boxes_that_are_missing_are_those_around_the_masks() -> None:
    content = scene()
    for record, missing in zip(content["annotations"], ("pop", None, [], "pop"), strict=True):
        record.pop("bbox") if missing == "pop" else record.update(bbox=missing)
    content["annotations"][0]["segmentation"] = [[-3, 2, 11, 2, 11, 60.5, 1, 22]]  # of an image of 50 x 30
    file = parse_coco(content, "x.json")
    assert dict(zip(file.annotations.ids.tolist(), file.annotations.boxes.tolist(), strict=True)) == {
        4: [0, 2, 11, 48],
        1: [10.5, 4.25, 20, 10],
        2: [2, 20, 40, 18],
        3: [0, 0, 2, 40],  # run lengths
    }
    assert notes(content) == ["x.json: annotations without bbox get the box around their mask (4 of them)"]
    assert read_truth(content).boxes.tolist()[1] == [10.5, 4.25, 20, 10]


@pytest.mark.parametrize(
    ("segmentation", "words"),
    [
        (None, "bbox is None, expected four finite numbers"),
        ([[1, 2, 3, 4]], "bbox is None, and its mask gives none: its polygons have fewer than 3 points"),
        ({"size": [9, 9], "counts": [81]}, "bbox is None, and its mask gives none: mask of size [9, 9]"),
        ("mask.png", "bbox is None, expected four finite numbers"),
    ],
)
def test_a_missing_box_whose_mask_gives_none_is_a_fault(segmentation: object, words: str) -> None:
    content = scene()
    content["annotations"][1] |= {"bbox": None, "segmentation": segmentation}
    (line,) = [problem.line for problem in parse_coco(content, "x.json").problems if problem.fatal]
    assert line.startswith(f"x.json: annotation 1 of image 500: {words}")


@pytest.mark.parametrize("kind", KINDS)
def test_truth_without_boxes_is_measured_by_its_masks(kind: Kind) -> None:
    content = scene_of_boxes([[10, 10, 20, 30], [50, 50, 10, 10]])
    bare = copy.deepcopy(content)
    results = []
    for record, stripped in zip(content["annotations"], bare["annotations"], strict=True):
        x, y, w, h = record["bbox"]
        stripped["segmentation"] = record["segmentation"] = [[x, y, x + w, y, x + w, y + h, x, y + h]]
        del stripped["bbox"]
        mask = codec.frPyObjects(record["segmentation"], 100, 100)[0]
        mask["counts"] = mask["counts"].decode()
        found = {"image_id": record["image_id"], "category_id": record["category_id"], "score": 0.5}
        results.append(found | {"bbox": record["bbox"], "segmentation": mask})
    assert evaluate_coco(bare, results, kind).ap == 1
    assert evaluate_coco(bare, results[:1], kind) == evaluate_coco(content, results[:1], kind)


@pytest.mark.parametrize("kind", KINDS)
def test_numbers_written_as_text_or_decimals_are_those_numbers(kind: Kind) -> None:
    plain = random_scene(3)
    odd = copy.deepcopy(plain)
    for record in odd.truth["images"]:
        record |= {"id": str(record["id"]), "height": str(record["height"]), "width": float(record["width"])}
    for record in odd.truth["categories"]:
        record["id"] = float(record["id"])
    for record in odd.truth["annotations"]:
        record |= {"image_id": float(record["image_id"]), "category_id": str(record["category_id"])}
        record["iscrowd"] = (["0", "false", None, False], ["1", "True", 1.0, True])[record["iscrowd"]][
            record["id"] % 4
        ]
    for record in odd.results:
        record |= {"image_id": str(record["image_id"]), "category_id": float(record["category_id"])}
    assert evaluate_coco(odd.truth, odd.results, kind) == evaluate_coco(plain.truth, plain.results, kind)
    assert parse_coco(odd.truth, "x").to_dict() == parse_coco(plain.truth, "x").to_dict()
    ids = len(odd.truth["images"]) + 4 + 2 * len(odd.truth["annotations"])
    texts = sum(isinstance(record["iscrowd"], str) for record in odd.truth["annotations"])
    assert notes(odd.truth) == [
        f"x.json: ids that are text or decimals are read as whole numbers ({ids} of them)",
        f"x.json: values of iscrowd that are text are read as 0 or 1 ({texts} of them)",
    ]


@pytest.mark.parametrize("value", ["2", "maybe", [], 0.5])
def test_what_says_nothing_about_crowds_is_a_fault(value: object) -> None:
    content = scene()
    content["annotations"][1]["iscrowd"] = value
    (line,) = [problem.line for problem in parse_coco(content, "x.json").problems if problem.fatal]
    assert line == f"x.json: annotation 1 of image 500: iscrowd is {value!r}, expected 0 or 1"


def test_ids_that_are_the_same_number_are_the_same_id() -> None:
    content = scene()
    content["images"][1]["id"] = "0500"
    (line, *_) = [problem.line for problem in parse_coco(content, "x.json").problems if problem.fatal]
    assert line == "x.json: image 500: the id occurs twice"


def test_objects_that_are_there_twice_are_counted() -> None:
    content = scene()
    copies = [record | {"id": record["id"] + 100} for record in content["annotations"]]
    copies[1]["category_id"] = 90
    copies[2]["bbox"] = [2, 20, 40, 18.5]
    content["annotations"] += copies  # the crowd and annotation 4 stay the same; a crowd may
    assert notes(content) == [
        "x.json: 1 of 8 annotations is there twice, with the same image, category and box (annotation 104 "
        "of image 30 the first): a detector that finds each once cannot reach AP 1"
    ]


@pytest.mark.parametrize("seed", range(4))
def test_no_two_of_many_objects_are_taken_for_the_same(seed: int) -> None:
    """Boxes on a grid, whose bits have much in common."""
    content = scene()
    first = content["annotations"][0]
    grid = [(x, y, w) for x in range(0, 20, 2) for y in range(seed, 20, 2) for w in (1, 2, 4)]
    content["annotations"] = [
        first | {"id": number, "bbox": [x, y, w, w], "category_id": category}
        for number, (category, (x, y, w)) in enumerate((c, cell) for c in (7, 13) for cell in grid)
    ]
    assert notes(content) == []


def test_boxes_that_are_fractions_are_refused_in_one_line() -> None:
    content = scene()
    for record in content["annotations"]:
        image = next(image for image in content["images"] if image["id"] == record["image_id"])
        x, y, width, height = record["bbox"]
        w, h = image["width"], image["height"]
        record["bbox"] = [x / w, y / h, width / w, height / h]
        del record["segmentation"]
    file = parse_coco(content, "x.json")
    assert [problem.line for problem in file.problems if problem.fatal] == [
        "x.json: all boxes (4) lie within the first pixel of their images: they look like fractions of width "
        "and height, expected pixels"
    ]
    assert len(file.annotations) == 0
    content["annotations"][0]["bbox"] = [0, 0, 1, 2]
    assert not any(problem.fatal for problem in parse_coco(content, "x.json").problems)


def test_roboflow_s_root_category_is_no_class() -> None:
    content = scene()
    root = {"id": 0, "name": "things", "supercategory": "none"}
    content["categories"] = [root] + [kind | {"supercategory": "things"} for kind in content["categories"]]
    file = parse_coco(content, "x.json")
    assert [category.id for category in file.categories] == [7, 13, 90]
    assert notes(content) == [
        "x.json: category things only holds the others together (Roboflow's root) and is left out"
    ]
    content["annotations"][0]["category_id"] = 0  # it has an object: a class as others
    assert [category.id for category in parse_coco(content, "x.json").categories] == [0, 7, 13, 90]
    content["categories"] = [{"id": 0, "name": "lone", "supercategory": "none"}, *scene()["categories"]]
    content["annotations"][0]["category_id"] = 13  # nobody's root: a class without objects
    assert [category.id for category in parse_coco(content, "x.json").categories] == [0, 7, 13, 90]


def test_names_that_differ_in_case_and_spaces_alone_are_noted() -> None:
    content = scene()
    content["categories"] = [
        {"id": 90, "name": "Tow Boat"},
        {"id": 7, "name": "towboat "},
        {"id": 13, "name": "sign"},
    ]
    assert [problem.line for problem in parse_coco(content, "x.json").problems] == [
        "x.json: 2 categories are called towboat , Tow Boat"
    ]
    train = parse_coco(scene(), "x.json").categories
    content["categories"] = [{"id": 90, "name": "Kite"}, {"id": 7, "name": " boat"}]
    content["annotations"] = []
    assert parse_coco(content, "val.json", train).problems == []
    content["categories"][0]["name"] = "  "
    (line, *_) = [problem.line for problem in parse_coco(content, "x.json").problems]
    assert line == "x.json: categories[0]: expected an id (a whole number from 0) and a name"


def test_results_of_categories_that_the_truth_lacks_count_nowhere() -> None:
    plain = random_scene(4)
    known = evaluate_coco(plain.truth, plain.results, "bbox")
    others = [record | {"category_id": 2, "score": 1.0} for record in plain.results[:5]]
    mixed = [*others[:2], *plain.results, *others[2:]]
    assert evaluate_coco(plain.truth, mixed, "bbox") == known
    assert of_other_categories(mixed, read_truth(plain.truth)) == 5
    with pytest.raises(ValueError, match="result 1: category_id 2 is not in the ground truth's list"):
        evaluate_coco(plain.truth, others, "bbox")
    mixed[3] = mixed[3] | {"bbox": None}  # still named by its number in the file
    with pytest.raises(ValueError, match="result 4: bbox is missing"):
        evaluate_coco(plain.truth, mixed, "bbox")


def test_objects_without_mask_are_counted_where_masks_are_asked_for() -> None:
    content = scene_of_boxes([[0, 0, 10, 10], [20, 20, 9, 9], [40, 40, 9, 9]])
    content["annotations"][0]["segmentation"] = [[0, 0, 10, 0, 10, 10]]
    for record in content["annotations"][1:]:
        record["segmentation"] = []
    why = read_truth(content).no_masks
    assert why is not None
    assert why.endswith(": no segmentation (and 1 more)")
