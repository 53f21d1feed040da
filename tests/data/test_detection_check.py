"""The check of COCO data: every fault is a line with image and annotation ids, and never a traceback."""

import copy
import json
import os
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from botvision.cli import main as cli
from botvision.config.data import DetectionDataConfig
from botvision.config.recipes import recipe_names
from botvision.data.check import CheckReport, check_data
from botvision.data.detection import open_detection, open_detection_split
from botvision.data.synthetic.shapes import ShapesSource
from botvision.io.errors import DataError

DATA = Path(os.environ.get("BOTVISION_DATA", Path(__file__).parents[3] / "shared" / "data"))
SIZE = (40, 60)
Change = Callable[[dict[str, Any]], object]


@pytest.fixture(scope="session")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six images for training and three for validation, three categories."""
    root = tmp_path_factory.mktemp("shapes")
    for split, count in (("train", 6), ("val", 3)):
        ShapesSource(seed=5, split=split, count=count, num_classes=3, size=SIZE).export(root)
    return root


@pytest.fixture
def data(drawn: Path, tmp_path: Path) -> Path:
    """A copy to be broken."""
    for path in drawn.rglob("*.*"):
        target = tmp_path / path.relative_to(drawn)
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(path.read_bytes())
    return tmp_path


def edit(root: Path, change: Change, split: str = "train") -> dict[str, Any]:
    """Change a split's annotations on disk; returns them."""
    path = root / "annotations" / f"instances_{split}.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return content


def first(content: dict[str, Any]) -> dict[str, Any]:
    return content["annotations"][0]


def refused(root: Path) -> CheckReport:
    """The report of data that are wrong: training refuses them too."""
    report = check_data(root)
    assert (report.kind, report.ok) == ("detection", False)
    with pytest.raises(DataError):
        _open_and_read(root)
    return report


def _open_and_read(root: Path) -> None:
    splits = open_detection(DetectionDataConfig(root=str(root)))
    splits.train.verify()
    splits.val.verify()


def test_sound_data(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report = check_data(data)
    assert (report.kind, report.ok, report.problems, report.readable, report.broken) == (
        *("detection", True, []),
        *(9, 0),
    )
    train, val = report.rows
    truth = json.loads((data / "annotations" / "instances_train.json").read_text())
    assert (train["split"], train["images"], train["annotations"]) == ("train", 6, len(truth["annotations"]))
    assert (val["images"], train["size_min"], train["categories"]) == (3, "40 x 60", 3)
    areas = [annotation["area"] for annotation in truth["annotations"]]
    assert train["small"] == sum(area < 1024 for area in areas) / len(areas)
    assert train["small"] + train["medium"] + train["large"] == pytest.approx(1)
    assert sum(row["train"] for row in report.categories) == len(areas)
    assert cli.main(["check", str(data)]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    assert "| small / medium / large |" in out
    command = re.search(rf"next: botvision train (\S+) --data.root {re.escape(str(data))}\n", out)
    assert command is not None
    assert command[1] in recipe_names()


def _set(place: str, **values: object) -> Change:
    """Set values of the first image or annotation."""
    return lambda content: content[place][0].update(copy.deepcopy(values))


FAULTS: dict[str, tuple[Change, str]] = {
    "outside": (_set("annotations", bbox=[70, 5, 10, 10]), "annotation 1 of image 1: bbox .* outside"),
    "reaches outside": (
        _set("annotations", bbox=[50, 5, 30, 10]),
        "annotation 1 of image 1: bbox .* outside",
    ),
    "negative": (_set("annotations", bbox=[5, 5, -3, 10]), "annotation 1 of image 1: bbox .* negative"),
    "nan": (_set("annotations", bbox=[5, float("nan"), 3, 10]), "annotation 1 of image 1: bbox .*nan"),
    "infinite": (_set("annotations", bbox=[5, 5, float("inf"), 9]), "annotation 1 of image 1: bbox .*inf"),
    "text": (_set("annotations", bbox="5 5 3 10"), "annotation 1 of image 1: bbox is '5 5 3 10'"),
    "no box": (_set("annotations", bbox=None, segmentation=None), "annotation 1 of image 1: bbox is None"),
    "category": (_set("annotations", category_id=9), "annotation 1 of image 1: .*category with id 9"),
    "image": (_set("annotations", image_id=77), "annotation 1 of image 77: there is no image"),
    "double annotation": (_set("annotations", id=2), "annotation 2 of image 1: the id occurs twice"),
    "double image": (_set("images", id=2), "image 2: the id occurs twice"),
    "odd polygon": (_set("annotations", segmentation=[[1, 1, 9, 9, 1, 9, 3]]), "1 of image 1: .* 7 numbers"),
    "nan polygon": (
        _set("annotations", segmentation=[[1, 1, 9, float("nan"), 1, 9]]),
        "annotation 1 of image 1: .* not a finite number",
    ),
    "mask size": (
        _set("annotations", segmentation={"size": [9, 9], "counts": [81]}),
        r"annotation 1 of image 1: mask of size \[9, 9\]",
    ),
    "short runs": (
        _set("annotations", segmentation={"size": [*SIZE], "counts": [9, 9]}),
        "annotation 1 of image 1: mask: ",
    ),
    "broken runs": (
        _set("annotations", segmentation={"size": [*SIZE], "counts": "~~~~~"}),
        "annotation 1 of image 1: mask: ",
    ),
    "crowd": (_set("annotations", iscrowd=3), "annotation 1 of image 1: iscrowd is 3"),
    "size": (_set("images", height=41), r"000000.png \(image id 1\): 40 x 60 .* say 41 x 60"),
    "no size": (_set("images", height=None), "image 1: height x width is None x 60"),
    "no file name": (_set("images", file_name=""), "image 1: file_name is ''"),
    "file": (_set("images", file_name="gone.png"), r"gone.png \(image id 1\): no such file"),
    "long file name": (_set("images", file_name="x" * 5000), r"xx \(image id 1\): no such file"),
    "double category": (_set("categories", id=2), "category 2: the id occurs twice"),
    "nameless": (_set("categories", name=None), r"categories\[0\]: expected an id .* and a name"),
    "annotation": (lambda c: c["annotations"].insert(0, 5), r"annotations\[0\]: id is None"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_is_named_with_its_ids(data: Path, fault: str, capsys: pytest.CaptureFixture[str]) -> None:
    change, line = FAULTS[fault]
    edit(data, change)
    report = refused(data)
    matching = [problem for problem in report.problems if re.search(line, problem)]
    assert matching, report.problems
    assert cli.main(["check", str(data)]) == 2
    err = capsys.readouterr().err
    assert f"botvision: {' '.join(matching[0].split())}" in err.splitlines()
    assert "Traceback" not in err


def test_all_faults_at_once_are_all_named(data: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        one, two, three, *_ = content["annotations"]
        one["category_id"] = 9
        two["bbox"] = [200, 200, 5, 5]
        three["segmentation"] = [[1, 2, 3, 4, 5]]

    content = edit(data, change)
    ids = [(a["id"], a["image_id"]) for a in content["annotations"][:3]]
    edit(data, _set("images", file_name="gone.png"), "val")
    report = refused(data)
    for number, image in ids:
        assert sum(f"annotation {number} of image {image}: " in line for line in report.problems) == 1
    assert len([line for line in report.problems if "gone.png (image id 1)" in line]) == 1
    assert report.broken == 1


def test_images_nowhere_to_be_found_are_one_line(data: Path) -> None:
    edit(data, lambda content: [image.update(file_name=f"x{image['id']}.png") for image in content["images"]])
    report = refused(data)
    (line,) = report.problems
    assert "none of its 6 images is in the usual folders or others of" in line
    assert report.broken == 6
    assert "other problem" not in report.summary


def test_equal_problems_are_capped(data: Path) -> None:
    def change(content: dict[str, Any]) -> None:
        content["annotations"] += [{**first(content), "id": 900 + k, "category_id": 77} for k in range(30)]

    edit(data, change)
    report = refused(data)
    problems = report.problems
    assert [len(problems), problems[-1]] == [21, "train: 10 more problems with category"]
    assert "30 other problems" in report.summary


def test_images_that_no_annotation_names_are_counted(data: Path) -> None:
    folder = next(data.rglob("*.png")).parent
    Image.new("RGB", (9, 9)).save(folder / "more.png")
    line = f"left out: 1 file, not in the annotations ({folder / 'more.png'})"
    assert line in check_data(data).warnings
    assert line in open_detection(DetectionDataConfig(root=str(data))).train.notes


def test_a_test_split_alone_is_checked_and_opened(data: Path) -> None:
    annotations, val = data / "annotations", open_detection(DetectionDataConfig(root=str(data))).val
    (annotations / "instances_train.json").unlink()
    (annotations / "instances_val.json").rename(annotations / "instances_test.json")
    report = check_data(data)
    assert [(row["split"], row["images"]) for row in report.rows] == [("test", 3)]
    assert report.ok
    config = DetectionDataConfig(root=str(data))
    opened = open_detection_split(config, "test", categories=val.categories)
    assert opened.ground_truth() == val.ground_truth()


def test_zero_area_is_a_note_with_ids_and_training_leaves_it_out(data: Path) -> None:
    content = edit(data, _set("annotations", bbox=[5, 5, 0, 10]))
    report = check_data(data)
    assert report.ok
    assert [w for w in report.warnings if "annotation 1 of image 1: bbox [5, 5, 0, 10] has no area" in w]
    assert report.rows[0]["dropped"] == 1
    train = open_detection(DetectionDataConfig(root=str(data))).train
    objects = sum(len(train.instances(index)["labels"]) for index in range(len(train)))
    assert objects == report.rows[0]["annotations"] == len(content["annotations"]) - 1
    assert train.ground_truth()["annotations"][0]["bbox"] == [5, 5, 0, 10]


def test_boxes_a_little_outside_are_one_note(data: Path) -> None:
    def outside(content: dict[str, Any]) -> None:
        for number in range(50):
            content["annotations"].append({**first(content), "id": 1000 + number, "bbox": [-1.5, 5, 30, 10]})

    edit(data, outside)
    report = check_data(data)
    assert report.ok
    (line,) = [warning for warning in report.warnings if "boxes reach" in warning]
    assert "50 boxes reach up to 1.5 pixels outside the image (annotation 1000 of image 1 the first)" in line


def test_left_and_right_classes_are_to_be_trained_without_flips(
    data: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def sides(content: dict[str, Any]) -> None:
        for category, name in zip(content["categories"], ("left_ear", "nose", "right_ear"), strict=True):
            category["name"] = name

    for split in ("train", "val"):
        edit(data, sides, split)
    assert cli.main(["check", str(data)]) == 0
    out = capsys.readouterr().out
    assert "note: left and right are classes of their own (left_ear, right_ear), " in out
    assert re.search(
        rf"next: botvision train \S+ --data.root {re.escape(str(data))} --data.flip false\n", out
    )
    assert cli.main(["check", str(data), "--data.flip", "false"]) == 0
    out = capsys.readouterr().out
    assert "left and right" not in out
    assert out.count("--data.flip false") == 1


def test_many_notes_are_counted(data: Path) -> None:
    def flat(content: dict[str, Any]) -> None:
        template = first(content)
        for number in range(50):
            content["annotations"].append({**template, "id": 1000 + number, "bbox": [1, 1, 5, 0]})

    edit(data, flat)
    report = check_data(data)
    assert sum("has no area" in line for line in report.warnings) == 20
    assert "train: 30 more notes on objects without area" in report.warnings


def test_truncated_and_empty_image_files(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    path = data / "train" / "photo.jpg"
    Image.fromarray(pixels).save(path)
    edit(data, _set("images", file_name="photo.jpg"))
    assert check_data(data).ok
    path.write_bytes(path.read_bytes()[:-400])
    (data / "val" / "000001.png").write_bytes(b"")
    report = refused(data)
    assert report.broken == 2
    assert [row["broken"] for row in report.rows] == [1, 1]
    assert [re.search(r"\(image id \d\)", line)[0] for line in report.problems] == [  # type: ignore[index]
        "(image id 1)",
        "(image id 2)",
    ]
    assert cli.main(["check", str(data)]) == 2
    assert "photo.jpg (image id 1)" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ('{"images": [', "instances_train.json: not valid JSON"),
        ("", "instances_train.json: not valid JSON"),
        ("\xff\xfe", "instances_train.json: not valid JSON"),
        ("[" * 100_000, "instances_train.json: not valid JSON"),
        ("[1, 2]", "instances_train.json: holds a list"),
        ('{"images": [], "annotations": {}}', "instances_train.json: no list 'annotations'"),
        ('{"images": [], "annotations": [], "categories": []}', "instances_train.json: no images"),
    ],
)
def test_what_is_no_coco_file(data: Path, text: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "annotations" / "instances_train.json").write_bytes(text.encode("latin-1"))
    assert any(line in problem for problem in refused(data).problems)
    assert cli.main(["check", str(data)]) == 2
    assert "Traceback" not in capsys.readouterr().err


def test_skipping_what_is_broken_makes_notes_of_it(data: Path) -> None:
    edit(data, _set("annotations", category_id=9))
    config = DetectionDataConfig(root=str(data), skip_broken=True)
    report = check_data(config)
    assert report.ok
    assert any("annotation 1 of image 1" in line for line in report.warnings)
    assert len(open_detection(config).train) == 6


def test_what_is_worth_knowing(data: Path) -> None:
    """Validation images that were trained on, categories without objects, crowded images, boxes only."""
    with Image.open(data / "train" / "000003.png") as image:
        image.save(data / "val" / "000000.png", compress_level=0)  # other bytes, the same pixels

    def change(content: dict[str, Any]) -> None:
        content["categories"].append({"id": 40, "name": "unicorn"})
        for number in range(120):
            content["annotations"].append({**first(content), "id": 1000 + number})
        for annotation in content["annotations"]:
            annotation.pop("segmentation")

    edit(data, change)
    notes = " ".join(check_data(data).warnings)
    for part in (
        "1 image of val is also in train: 000000.png (image id 1) = 000003.png (image id 4)",
        "train has no objects of 1 category (unicorn): they cannot be learnt",
        "objects: with 100 detections an image AP cannot reach 1",
        "train has boxes without masks",
    ):
        assert part in notes
    (data / "annotations" / "instances_val.json").unlink()
    assert any("15% of the training images are held back" in line for line in check_data(data).warnings)


def test_annotations_in_a_place_of_their_own(data: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (data / "odd").mkdir()
    (data / "annotations" / "instances_train.json").rename(data / "odd" / "a.json")
    (data / "train").rename(data / "odd" / "pictures")
    keys = ["--data.train_annotations", "odd/a.json", "--data.train_images", "odd/pictures"]
    assert cli.main(["check", str(data), *keys]) == 0
    assert " ".join(keys) in capsys.readouterr().out
    assert cli.main(["check", str(data), "--data.train_annotations", "odd/b.json"]) == 2
    assert "odd/b.json: no such file" in capsys.readouterr().err
    assert cli.main(["check", str(data), "--data.train_annotation", "odd/b.json"]) == 2
    assert "did you mean 'data.train_annotations'?" in capsys.readouterr().err


def test_generated_data_are_sound() -> None:
    config = DetectionDataConfig(source="generated", image_size=SIZE, num_images=5, num_val_images=4)
    report = check_data(config)
    assert report.ok
    assert [row["images"] for row in report.rows] == [5, 4]


def test_json_beside_images_of_classes_is_no_detection_data(image_folder: Callable[..., Path]) -> None:
    root = image_folder({"train/a": 1, "train/b": 1, "val/a": 1, "val/b": 1})
    (root / "manifest.json").write_text('{"images": 3}')
    assert check_data(root).kind == "classification"
    (root / "manifest.json").write_text("")
    assert check_data(root).kind == "classification"


@pytest.mark.skipif(not (DATA / "coco").is_dir(), reason="needs the real data beside the checkout")
def test_real_coco() -> None:
    report = check_data(DATA / "coco")
    assert report.ok, report.problems
    train, val = report.rows
    assert (train["images"], train["annotations"], val["images"], val["annotations"]) == (343, 2974, 50, 382)
    assert (train["crowds"], train["categories_used"]) == (29, 80)
    assert train["bytes_per_100k"] < 40e6
