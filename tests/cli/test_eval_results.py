"""``botvision eval RESULTS.json --truth INSTANCES.json``: what it prints, writes and refuses."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
from PIL import Image

from botvision.cli import main as cli
from botvision.coco.evaluate import evaluate_coco
from botvision.tables import evaluation as tables
from tests.coco.scenes import Scene, random_scene
from tests.coco.test_evaluate import REFERENCE, scene_of_boxes
from tests.terminal import complaint, table


@pytest.fixture
def files(tmp_path) -> tuple[Scene, str, str]:
    scene = random_scene(2)
    truth, results = tmp_path / "truth.json", tmp_path / "found.json"
    truth.write_text(json.dumps(scene.truth))
    results.write_text(json.dumps(scene.results))
    return scene, str(results), str(truth)


def test_tables_files_and_picture_beside_the_results(files, capsys):
    scene, results, truth = files
    assert cli.main(["eval", results, "--truth", truth]) == 0
    printed = capsys.readouterr().out
    boxes, masks = (evaluate_coco(scene.truth, scene.results, kind) for kind in ("bbox", "segm"))
    rows = table(printed, "AP (%)")
    assert [row[0] for row in rows] == ["AP (%)", "box", "mask"]
    assert rows[1][1:4] == [f"{100 * value:.1f}" for value in (boxes.ap, boxes.ap50, boxes.ap75)]
    rows = table(printed, "AR (%)")
    assert rows[0][1:4] == ["1 detection", "10 detections", "100 detections"]
    assert rows[2][3] == f"{100 * masks.ar_max:.1f}"
    rows = table(printed, "class")
    assert [row[0] for row in rows[1:]] == ["class 1", "class 3", "class 4"]
    assert rows[1][1:5] == [
        str(boxes.per_class[0].images),
        str(boxes.per_class[0].instances),
        *(f"{100 * value:.1f}" for value in (boxes.per_class[0].ap, boxes.per_class[0].ap50)),
    ]
    assert "not in the ground truth: class 90" in printed
    folder = Path(results).parent
    assert {path.name for path in folder.iterdir()} == {
        "truth.json", "found.json", "found-eval.json", "found-pr.png"
    }  # fmt: skip
    written = json.loads((folder / "found-eval.json").read_text())
    assert written["bbox"] == json.loads(json.dumps(boxes.to_dict()))
    assert written["segm"]["ap"] == masks.ap
    with Image.open(folder / "found-pr.png") as picture:
        assert picture.size == (1248, 588)


def test_another_folder_and_number_of_detections(files, tmp_path, capsys):
    scene, results, truth = files
    before = set(tmp_path.iterdir())
    argv = ["eval", results, "--truth", truth, "--out", str(tmp_path / "out"), "--max-detections", "2"]
    assert cli.main(argv) == 0
    rows = table(capsys.readouterr().out, "AR (%)")
    assert rows[0][1:4] == ["1 detection", "2 detections", "2 detections"]
    written = json.loads((tmp_path / "out" / "found-eval.json").read_text())
    assert written["segm"]["ap"] == evaluate_coco(scene.truth, scene.results, "segm", 2).ap
    assert written["segm"]["max_detections"] == 2
    assert set(tmp_path.iterdir()) - before == {tmp_path / "out"}


@pytest.mark.skipif(not REFERENCE.is_dir(), reason="no reference results: set BOTVISION_DATA")
@pytest.mark.parametrize(
    ("kind", "name", "expected"),
    [("bbox", "box", ["50.5", "69.7", "57.3"]), ("segm", "mask", ["32.0", "56.2", "29.9"])],
)
def test_reference_results_from_the_command_line(kind, name, expected, tmp_path, capsys):
    results = REFERENCE / f"instances_val2014_fake{kind}100_results.json"
    argv = ["eval", str(results), "--truth", str(REFERENCE / "instances_val2014_100.json")]
    assert cli.main([*argv, "--out", str(tmp_path)]) == 0
    assert table(capsys.readouterr().out, "AP (%)")[1][:4] == [name, *expected]


def test_wrong_arguments_are_one_line(files, tmp_path, capsys):
    _, results, truth = files
    assert complaint(capsys, "eval", results) == (
        f"{results}: COCO results need their ground truth: --truth INSTANCES.json"
    )
    assert "nowhere.json: no such file" in complaint(capsys, "eval", results, "--truth", "nowhere.json")
    assert "--truth: goes with a file of COCO results" in complaint(
        capsys, "eval", str(tmp_path), "--truth", truth
    )
    assert "--split: goes with a run folder" in complaint(
        capsys, "eval", results, "--truth", truth, "--split", "val"
    )
    assert "--data.root: goes with a run folder" in complaint(
        capsys, "eval", results, "--truth", truth, "--data.root", "x"
    )
    assert "--max-detections: goes with a file of COCO results" in complaint(
        capsys, "eval", str(tmp_path), "--max-detections", "5"
    )


def test_bad_files_are_named_in_one_line(files, tmp_path, capsys):
    _, results, truth = files
    Path(results).write_text('[{"image_id": 1}]')
    assert complaint(capsys, "eval", results, "--truth", truth) == (
        f"{results}: results with neither bbox nor segmentation"
    )
    Path(results).write_text('[{"image_id": 1, "category_id": 1, "score": 0.5, "bbox": [0, 0, 1, 1]}]')
    assert complaint(capsys, "eval", results, "--truth", truth) == (
        f"{results}: no result is of an image of {truth}, which has 17 to 47 (image_id 1 the first of 1): "
        "results on other data, or numbered otherwise"
    )
    Path(truth).write_text("{")
    assert f"{truth}: not valid JSON" in complaint(capsys, "eval", results, "--truth", truth)


def test_what_the_masks_lack_costs_the_masks_alone(files, capsys):
    scene, results, truth = files
    boxes, masks = (evaluate_coco(scene.truth, scene.results, kind) for kind in ("bbox", "segm"))
    lacking = json.loads(Path(truth).read_text())
    lacking["annotations"][2]["segmentation"] = []
    Path(truth).write_text(json.dumps(lacking))
    assert cli.main(["eval", results, "--truth", truth]) == 0
    printed = capsys.readouterr()
    number, image = (lacking["annotations"][2][key] for key in ("id", "image_id"))
    line = f"{truth}: annotation {number} of image {image}: no segmentation"
    assert printed.err == f"botvision: masks are not evaluated: {line}\n"
    assert [row[:2] for row in table(printed.out, "AP (%)")[1:]] == [["box", f"{100 * boxes.ap:.1f}"]]
    bare = [{key: value for key, value in record.items() if key != "bbox"} for record in scene.results]
    Path(results).write_text(json.dumps(bare))
    assert "no segmentation" in complaint(capsys, "eval", results, "--truth", truth)
    for record in scene.truth["annotations"]:
        del record["bbox"]
    Path(truth).write_text(json.dumps(scene.truth))
    assert cli.main(["eval", results, "--truth", truth]) == 0
    printed = capsys.readouterr()
    assert [row[:2] for row in table(printed.out, "AP (%)")[1:]] == [["mask", f"{100 * masks.ap:.1f}"]]
    count = len(scene.truth["annotations"])
    line = f"botvision: {truth}: annotations without bbox get the box around their mask ({count} of them)\n"
    assert printed.err == line


def test_results_of_categories_that_the_truth_does_not_list_are_counted(files, capsys):
    scene, results, truth = files
    kept = [record for record in scene.truth["annotations"] if record["category_id"] != 4]
    listed = [category for category in scene.truth["categories"] if category["id"] != 4]
    content = scene.truth | {"annotations": kept, "categories": listed}
    Path(truth).write_text(json.dumps(content))
    others = sum(record["category_id"] == 4 for record in scene.results)
    known = [record for record in scene.results if record["category_id"] != 4]
    assert others
    assert cli.main(["eval", results, "--truth", truth]) == 0
    printed = capsys.readouterr()
    assert printed.err == (
        f"botvision: {results}: {others} results of categories that {truth} does not list are left out\n"
    )
    ap = evaluate_coco(content, known, "bbox").ap
    assert table(printed.out, "AP (%)")[1][1] == f"{100 * ap:.1f}"


def test_a_folder_that_cannot_be_written_to_is_named(files, tmp_path, capsys):
    _, results, truth = files
    (tmp_path / "file").write_text("in the way")
    out = tmp_path / "file" / "out"
    line = complaint(capsys, "eval", results, "--truth", truth, "--out", str(out))
    assert line == f"{out}: Not a directory; name another folder with --out"


def test_a_detectors_run_is_shown_in_the_same_tables():
    boxes = evaluate_coco(scene_of_boxes([[0, 0, 9, 9]]), [], "bbox")
    text = tables.metrics_tables(SimpleNamespace(bbox=boxes, segm=None))
    assert text == tables.coco_tables([boxes])
    assert table(text, "AP (%)")[1] == ["box", "0.0", "0.0", "0.0", "0.0", "", ""]


def test_of_many_classes_the_lowest_are_listed():
    truth = scene_of_boxes([[0, 0, 10, 10]] * 130)
    truth["categories"] = [{"id": k, "name": f"c{k}"} for k in range(130)]
    for k, annotation in enumerate(truth["annotations"]):
        annotation["category_id"] = k
    found = [
        {"image_id": 1, "category_id": k, "bbox": [0, 0, 10, 10], "score": 1.0} for k in range(0, 130, 13)
    ]
    rows = table(tables.coco_tables([evaluate_coco(truth, found, "bbox")]), "100 lowest of 130")
    assert len(rows) == 101
    assert {row[3] for row in rows[1:]} == {"0.0"}


BOX = {"image_id": 1, "category_id": 2, "bbox": [10, 10, 20, 20], "score": 0.5}


def evaluated(
    folder: Path, truth: object, results: object, capsys: pytest.CaptureFixture[str]
) -> tuple[int, list[str]]:
    """Return the exit code, and the lines of the error stream without the folder."""
    for name, content in (("truth", truth), ("found", results)):
        (folder / f"{name}.json").write_text(json.dumps(content))
    code = cli.main(["eval", str(folder / "found.json"), "--truth", str(folder / "truth.json")])
    lines = capsys.readouterr().err.replace(f"{folder}/", "").splitlines()
    return code, [line.removeprefix("botvision: ") for line in lines]


def test_what_check_notes_of_the_truth_is_said(tmp_path, capsys):
    truth = scene_of_boxes([[10, 10, 20, 20], [10, 10, 20, 20], [-30, 5, 40, 20], [5, 5, 0, 9]])
    truth["annotations"][0] |= {"area": 0, "iscrowd": "0"}
    assert evaluated(tmp_path, truth, [BOX], capsys) == (0, [
        "truth.json: 1 box reaches 30.0 pixels outside the image (annotation 12 of image 1): measured as "
        "in the file",
        "truth.json: 1 of 4 annotations is there twice, with the same image, category and box (annotation 11 "
        "of image 1 the first): a detector that finds each once cannot reach AP 1",
        "truth.json: boxes without area are measured as the file has them (1 of them, annotation 13 the "
        "first)",
        "truth.json: stated areas that are not above 0 count in evaluation by size (1 of them, annotation 10 "
        "the first)",
        "truth.json: values of iscrowd that are text are read as 0 or 1 (1 of them)",
    ])  # fmt: skip
    few = scene_of_boxes([[0.1, 0.1, 0.2, 0.2]])
    assert evaluated(tmp_path, few, [BOX | {"bbox": [0.1, 0.1, 0.2, 0.2]}], capsys) == (0, [
        f"{name}.json: all boxes (1) lie within the first pixel of their images: they look like fractions of "
        "width and height, expected pixels" for name in ("truth", "found")
    ])  # fmt: skip


def test_what_is_odd_about_results_is_said(tmp_path, capsys):
    truth = scene_of_boxes([[10, 10, 20, 20]])
    truth["images"] += [{"id": k, "height": 100, "width": 100} for k in (2, 3)]  # 3 has no objects
    truth["annotations"].append({**truth["annotations"][0], "id": 20, "image_id": 2})
    found = [
        BOX,
        BOX,
        BOX | {"score": 0.4},
        BOX | {"bbox": [50, 60, 90, 95]},
        BOX | {"bbox": [50, 60, 52, 40]},
    ]
    assert evaluated(tmp_path, truth, found, capsys) == (0, [
        "found.json: no results for 1 of the 2 images that have objects (image 2 the first): their objects "
        "count as missed",
        "found.json: 1 of 5 boxes reach up to 55.0 pixels outside the image (result 4 the first): expected "
        "x, y, width, height",
        "found.json: 1 of 5 results are there before, to the score: all but the first of each count as wrong",
    ])  # fmt: skip
    assert evaluated(tmp_path, truth, [BOX, BOX | {"image_id": 2}], capsys) == (0, [])
    assert evaluated(tmp_path, truth, [BOX | {"image_id": "1"}, BOX | {"image_id": 2}], capsys) == (0, [
        "found.json: image_id that is text or decimal is read as a whole number (1 of them)"
    ])  # fmt: skip
    assert evaluated(tmp_path, truth, [], capsys)[1][0].startswith("found.json: no results for 2 of the 2 im")


@pytest.mark.parametrize(
    ("truth", "results", "line"),
    [
        (None, scene_of_boxes([[1, 1, 9, 9]]), "found.json: expected a list of objects with image_id, "
         "category_id, score, ...; these are COCO annotations, as --truth takes them"),
        (None, {"predictions": []}, "found.json: expected a list of objects with image_id, category_id, "
         "score, ...; these predictions are for people, results.json lies beside them"),
        (None, {"annotations": [BOX]}, "found.json: expected a list of objects with image_id, category_id, "
         "score, ..., got an object with 'annotations'"),
        ([BOX], [BOX], "truth.json: holds a list, as results are, expected a COCO object with images, "
         "annotations and categories"),
        (None, [BOX | {"image_id": 9}], "found.json: no result is of an image of truth.json, which has 1 "
         "alone (image_id 9 the first of 1): results on other data, or numbered otherwise"),
        (None, [BOX | {"category_id": 0}] * 3, "found.json: no result is of a category of truth.json, which "
         "has 2 alone (category_id 0 the first of 3): results on other data, or numbered otherwise"),
        (scene_of_boxes([]) | {"images": []}, [BOX], "truth.json: 0 images and no objects: there is nothing "
         "to measure"),
    ],
)  # fmt: skip
def test_files_that_do_not_belong_there_are_one_line(truth, results, line, tmp_path, capsys):
    truth = scene_of_boxes([[10, 10, 20, 20]]) if truth is None else truth
    assert evaluated(tmp_path, truth, results, capsys) == (2, [line])


def test_truth_without_sizes_costs_the_masks_alone(tmp_path, capsys):
    truth = scene_of_boxes([[10, 10, 20, 20]])
    truth["images"] = [{"id": 1}]
    mask = {"segmentation": {"size": [100, 100], "counts": [0, 100]}}
    fault = "truth.json: annotation 10 of image 1: image 1 has no height and width, which masks need"
    assert evaluated(tmp_path, truth, [BOX | mask], capsys) == (0, [f"masks are not evaluated: {fault}"])
    only = [{key: value for key, value in (BOX | mask).items() if key != "bbox"}]
    assert evaluated(tmp_path, truth, only, capsys) == (2, [fault])
