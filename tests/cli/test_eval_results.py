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
        f"{results}: result 1: image_id 1 is not in the ground truth's list"
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
