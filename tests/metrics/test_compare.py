"""Groups, means, spreads and differences, against numbers worked out by hand."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from botvision.metrics.compare import compare
from botvision.metrics.runs import Run, read_run, run_folders
from botvision.tables.runs import comparison_table, summary_table
from tests.terminal import table


def write_run(folder: Path, *, config: str | None = None, **changes: object) -> Path:
    summary = {
        "task": "classify", "recipe": "cifar10-bot", "model": "botnet26_small", "data": "CIFAR-10 (JPEG)",
        "seed": 0, "epochs": 10, "top1": 0.9, "top5": 0.99, "loss": 0.3, "params": 1_234_567,
        "macs": 45_600_000, "image_size": [32, 32], "train_seconds": 60.0, "step_ms": 20.0,
        "hardware": "2 cores", "precision": "32-true",
    }  # fmt: skip
    folder.mkdir(parents=True)
    (folder / "summary.json").write_text(json.dumps(summary | changes))
    if config is not None:
        (folder / "config.yaml").write_text(config)
    return folder


def run(model: str, seed: int, top1: float, **changes: Any) -> Run:
    values: dict[str, Any] = {
        "folder": f"runs/{model}-{seed}-{len(changes)}", "data": "shapes", "epochs": 10, "params": 1_000_000,
        "macs": 10**9, "image_size": (32, 32), "precision": "32-true", "hardware": "2 cores", "step_ms": 10.0,
    }  # fmt: skip
    return Run(model=model, seed=seed, scores={"top1": top1}, **(values | changes))


def test_mean_sample_sd_and_paired_difference_equal_the_hand_worked_numbers():
    # resnet: 90, 92, 94 -> mean 92, sd sqrt((4 + 0 + 4) / 2) = 2
    # botnet: 91, 94, 94 -> mean 93, sd sqrt((4 + 1 + 1) / 2) = sqrt(3)
    # by seed: +1, +2, 0 -> mean 1, sd sqrt((0 + 1 + 1) / 2) = 1
    runs = [run("resnet", s, t) for s, t in ((0, 0.90), (1, 0.92), (2, 0.94))]
    runs += [run("botnet", s, t) for s, t in ((2, 0.94), (1, 0.94), (0, 0.91))]
    resnet, botnet = compare(runs).groups
    assert (resnet.label, resnet.n, resnet.seeds, resnet.scores["top1"].difference) == (
        "resnet",
        3,
        [0, 1, 2],
        None,
    )
    assert resnet.scores["top1"].mean == pytest.approx(0.92, abs=1e-12)
    assert resnet.scores["top1"].sd == pytest.approx(0.02, abs=1e-12)
    assert botnet.scores["top1"].mean == pytest.approx(0.93, abs=1e-12)
    assert botnet.scores["top1"].sd == pytest.approx(math.sqrt(3) / 100, abs=1e-12)
    assert botnet.scores["top1"].difference is not None
    assert botnet.scores["top1"].difference.pairs == pytest.approx({0: 0.01, 1: 0.02, 2: 0.0}, abs=1e-12)
    assert botnet.scores["top1"].difference.mean == pytest.approx(0.01, abs=1e-12)
    assert botnet.scores["top1"].difference.sd == pytest.approx(0.01, abs=1e-12)
    assert compare(runs).warnings == ()


def test_a_folder_of_runs_stands_for_its_finished_ones(tmp_path):
    for name in ("b-s0", "a-s0", ".a-s1.partial", "begun"):
        (tmp_path / name).mkdir()
        if name != "begun":
            (tmp_path / name / "summary.json").write_text("{}")
    (tmp_path / "study.txt").write_text("a study")
    assert run_folders(tmp_path) == [tmp_path / "a-s0", tmp_path / "b-s0"]
    assert run_folders(tmp_path / "a-s0") == [tmp_path / "a-s0"]
    assert run_folders(tmp_path / "begun") == [tmp_path / "begun"]  # whose fault is then named


def test_only_common_seeds_are_paired_and_unequal_seeds_are_said():
    # pairs: seed 1 alone, 0.80 - 0.70 = +0.10; the means differ by 0.85 - 0.65 = 0.20
    runs = [run("a", 0, 0.60), run("a", 1, 0.70), run("b", 1, 0.80), run("b", 2, 0.90)]
    comparison = compare(runs)
    difference = comparison.groups[1].scores["top1"].difference
    assert difference is not None
    assert (list(difference.pairs), difference.sd, difference.over_seeds) == ([1], None, None)
    assert difference.mean == pytest.approx(0.10, abs=1e-12)
    assert comparison.warnings == ("the groups do not have the same seeds",)


def test_without_a_common_seed_the_difference_of_the_means_is_marked_unpaired():
    comparison = compare([run("a", 0, 0.5), run("b", 7, 0.75)])
    difference = comparison.groups[1].scores["top1"].difference
    assert difference is not None
    assert (difference.mean, difference.sd, difference.pairs) == (0.25, None, {})
    assert "+25.00 (unpaired)" in comparison_table(comparison)


def test_what_a_run_could_not_measure_is_an_empty_cell():
    summary = {
        "model": "a", "data": "d", "top1": None, "top5": None, "loss": None, "params": 10**6, "macs": 10**9,
        "image_size": [8, 8], "epochs": 1, "step_ms": None,
    }  # fmt: skip
    cells = [cell.strip() for cell in summary_table(summary).splitlines()[2].strip("|").split("|")]
    assert cells == ["a", "d", "", "", "", "1.00", "1.00", "8x8", "1", ""]


def test_one_run_has_no_spread():
    comparison = compare([run("a", 0, 0.5)])
    assert comparison.groups[0].scores["top1"].sd is None
    row = comparison_table(comparison).splitlines()[2]
    assert "±" not in row
    assert " 50.00 |" in row


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"data": "other"}, "the runs differ in data: other, shapes"),
        ({"epochs": 20}, "the runs differ in number of epochs: 10, 20"),
        ({"precision": "bf16-mixed"}, "the runs differ in precision: 32-true, bf16-mixed"),
        ({"image_size": (64, 32)}, "the runs differ in image size: 32x32, 64x32"),
        ({"kept": "best"}, "the runs differ in weights evaluated: best, unknown"),
        ({"train_images": 9}, "the runs differ in number of training images: 9, unknown"),
        ({"val_images": 9}, "the runs differ in number of validation images: 9, unknown"),
        ({"hardware": "a GPU"}, "step times come from different hardware: 2 cores, a GPU"),
    ],
)
def test_apples_with_pears_are_called_so(change, words):
    comparison = compare([run("a", 0, 0.5), run("b", 0, 0.6, **change)])
    assert comparison.warnings == (words,)
    assert f"- Warning: {words}" in comparison_table(comparison)


def test_repeated_seed_and_changed_size_within_a_group_are_said():
    comparison = compare([run("a", 3, 0.5), run("a", 3, 0.7, folder="again", params=5)])
    assert comparison.warnings == (
        "a: more than one run with seed 3",
        "a: its runs differ in parameters or multiply-adds",
    )


def test_settings_other_than_the_seed_split_groups_and_name_them(tmp_path):
    text = (
        "model: {{name: botnet26_small, args: {{position: {}}}}}\ntrain: {{seed: {}}}\ndata: {{root: {}}}\n"
    )
    folders = [
        write_run(tmp_path / "0", config=text.format("relative", 0, "/a"), seed=0, top1=0.80),
        write_run(tmp_path / "1", config=text.format("relative", 1, "/b"), seed=1, top1=0.82),
        write_run(tmp_path / "2", config=text.format("absolute", 0, "/a"), seed=0, top1=0.79),
    ]
    relative, absolute = compare(map(read_run, folders)).groups
    assert relative.label == 'botnet26_small (model.args.position "relative")'
    assert absolute.label == 'botnet26_small (model.args.position "absolute")'
    assert (relative.n, absolute.n) == (2, 1)


def test_models_that_were_trained_differently_are_called_so(tmp_path):
    text = (
        "model: {{name: {0}, args: {{heads: {1}}}, weights: {2}}}\noptim: {{lr: {3}}}\ntrain: {{keep: {4}}}\n"
    )
    folders = [
        write_run(tmp_path / "0", model="a", config=text.format("a", 2, "null", 0.1, "last"), kept="last"),
        write_run(tmp_path / "1", model="b", config=text.format("b", 4, "x", 0.05, "best"), kept="best"),
        write_run(tmp_path / "2", model="c"),  # without configuration there is nothing to compare
    ]
    assert compare(map(read_run, folders)).warnings == (
        "the runs differ in weights evaluated: best, last, unknown",
        'the models were trained with different model.weights: "x", null',
        "the models were trained with different optim.lr: 0.05, 0.1",
    )


def test_other_code_and_other_packages_are_a_note(tmp_path):
    versions = {"torch": "2.14", "timm": "1"}
    folders = [
        write_run(tmp_path / "0", commit="abc", versions=versions),
        write_run(tmp_path / "1", commit="def+changes", versions=versions | {"torch": "2.15"}, seed=1),
    ]
    comparison = compare(map(read_run, folders))
    assert comparison.warnings == ()
    assert comparison.notes == (
        "the runs come from different commits: abc, def+changes",
        "the runs come from different versions of torch: 2.14, 2.15",
    )
    assert comparison_table(comparison).endswith("- Note: " + "\n- Note: ".join(comparison.notes) + "\n")
    assert comparison.to_json()["notes"] == list(comparison.notes)


def test_table_and_json_of_run_folders(tmp_path):
    folders = [
        write_run(tmp_path / "r0", model="resnet26_small", params=2_000_000, macs=1_230_000_000, top1=0.85),
        write_run(tmp_path / "b0", top1=0.875, step_ms=None),
    ]
    comparison = compare(map(read_run, folders))
    lines = comparison_table(comparison).splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[:4]]
    assert cells[2] == ["resnet26_small", "2.00", "1.23", "32x32", "10", "1", "85.00", "", "20.0"]
    assert cells[3] == [
        "botnet26_small",
        "1.23",
        "0.0456",
        "32x32",
        "10",
        "1",
        "87.50",
        "+2.50 (1 paired)",
        "",
    ]
    assert len({len(line) for line in lines[:4]}) == 1
    assert lines[5].startswith("Data: CIFAR-10 (JPEG).")
    plain = json.loads(json.dumps(comparison.to_json()))
    assert plain["groups"][1]["top1"]["difference"] == {
        "mean": pytest.approx(0.025), "sd": None, "pairs": {"0": pytest.approx(0.025)}, "over_seeds": None
    }  # fmt: skip
    assert plain["groups"][0]["runs"] == [
        {"folder": str(folders[0]), "seed": 0, "top1": 0.85, "step_ms": 20.0}
    ]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"top1": 85.0}, "top1 is 85.0, expected a fraction from 0 to 1"),
        ({"top1": None}, "top1 is None, expected a number"),
        ({"params": "many"}, "params is 'many', expected a number"),
        ({"model": None}, "model is None, expected a name"),
        ({"image_size": [32]}, r"image_size is \[32\], expected \[height, width\]"),
        ({"macs": math.nan}, "macs is nan, expected a number"),
    ],
)
def test_bad_summary_names_file_and_key(tmp_path, changes, words):
    folder = write_run(tmp_path / "run", **changes)
    with pytest.raises(ValueError, match=rf"run/summary\.json: {words}"):
        read_run(folder)


def test_missing_or_broken_files_are_one_line(tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such run folder"):
        read_run(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"summary\.json: missing; is this a run folder"):
        read_run(tmp_path)
    (tmp_path / "summary.json").write_text('{"model": ')
    with pytest.raises(ValueError, match=r"summary\.json: not valid JSON"):
        read_run(tmp_path)
    with pytest.raises(ValueError, match=r"config\.yaml: cannot be read as YAML"):
        read_run(write_run(tmp_path / "run", config="a: [1"))


def detector(model: str, seed: int, box: float, mask: float | None = None) -> Run:
    scores = {"box_ap": box, "box_ap50": box + 0.2}
    scores |= {} if mask is None else {"mask_ap": mask, "mask_ap50": mask + 0.1}
    return replace(run(model, seed, 0), task="detect", scores=scores)


def test_detectors_have_a_spread_and_a_difference_for_boxes_and_for_masks():
    # boxes: 40, 44 -> 42, sd sqrt(8); 45, 45 -> 45, sd 0; by seed +5, +1 -> +3, sd sqrt(8)
    # masks: 30, 32 -> 31, sd sqrt(2); 31, 35 -> 33, sd sqrt(8); by seed +1, +3 -> +2, sd sqrt(2)
    runs = [detector("resnet", 0, 0.40, 0.30), detector("resnet", 1, 0.44, 0.32)]
    runs += [detector("botnet", 0, 0.45, 0.31), detector("botnet", 1, 0.45, 0.35)]
    comparison = compare(runs)
    rows = table(comparison_table(comparison), "model")
    assert rows[0][6:] == [
        "box AP (%)", "difference (points)", "mask AP (%)", "difference (points)", "step (ms)"
    ]  # fmt: skip
    assert rows[1][6:10] == ["42.00 ± 2.83", "", "31.00 ± 1.41", ""]
    assert rows[2][6:10] == [
        "45.00 ± 0.00", "+3.00 ± 2.83 (-22.41 to +28.41; 2 paired)",
        "33.00 ± 2.83", "+2.00 ± 1.41 (-10.71 to +14.71; 2 paired)",
    ]  # fmt: skip
    plain = json.loads(json.dumps(comparison.to_json()))
    assert plain["task"] == "detect"
    second = plain["groups"][1]
    assert second["mask_ap"]["difference"] == {
        "mean": pytest.approx(0.02), "sd": pytest.approx(math.sqrt(2) / 100),
        "pairs": {"0": pytest.approx(0.01), "1": pytest.approx(0.03)},
        "over_seeds": {"low": pytest.approx(-0.10706, abs=1e-5), "high": pytest.approx(0.14706, abs=1e-5)},
    }  # fmt: skip
    assert second["box_ap50"]["mean"] == pytest.approx(0.65)
    assert second["runs"][1] == {
        "folder": "runs/botnet-1-0", "seed": 1, "box_ap": 0.45, "box_ap50": pytest.approx(0.65),
        "mask_ap": 0.35, "mask_ap50": pytest.approx(0.45), "step_ms": 10.0,
    }  # fmt: skip


def test_boxes_alone_leave_the_cells_of_masks_empty():
    boxes, masks = detector("faster", 0, 0.40), detector("mask", 0, 0.42, 0.35)
    rows = table(comparison_table(compare([boxes, masks])), "model")
    assert rows[1][6:10] == ["40.00", "", "", ""]
    assert rows[2][6:10] == ["42.00", "+2.00 (1 paired)", "35.00", ""]
    alone = table(comparison_table(compare([boxes])), "model")
    assert alone[0][6:] == ["box AP (%)", "difference (points)", "step (ms)"]


def test_tasks_are_not_mixed():
    with pytest.raises(ValueError, match=r"^runs of different tasks: runs/a-0-0 is classify, .* is detect$"):
        compare([run("a", 0, 0.5), detector("b", 0, 0.4)])


def test_summary_of_a_detector_is_read(tmp_path):
    found: Any = {
        "task": "detect",
        "box_ap": 0.4,
        "box_ap50": 0.6,
        "mask_ap": None,
        "mask_ap50": None,
    }
    assert read_run(write_run(tmp_path / "a", **found)).scores == {"box_ap": 0.4, "box_ap50": 0.6}
    for wrong, words in (
        ({"box_ap": None}, "box_ap is None, expected a number"),
        ({"mask_ap": 40.0}, "mask_ap is 40.0, expected a fraction from 0 to 1"),
        ({"task": "segment"}, "task is 'segment', expected classify or detect"),
    ):
        with pytest.raises(ValueError, match=words):
            read_run(write_run(tmp_path / words, **(found | wrong)))


def test_summary_line_of_a_detector():
    summary = {
        "task": "detect", "model": "a", "data": "d", "box_ap": 0.4, "box_ap50": 0.6, "mask_ap": None,
        "params": 10**6, "macs": 10**9, "image_size": [8, 8], "epochs": 1, "step_ms": None,
    }  # fmt: skip
    rows = table(summary_table(summary), "model")
    assert rows[0][2:6] == ["box AP (%)", "box AP50 (%)", "mask AP (%)", "mask AP50 (%)"]
    assert rows[1][2:6] == ["40.00", "60.00", "", ""]


def test_nothing_and_the_same_folder_twice_are_refused(tmp_path):
    with pytest.raises(ValueError, match="nothing to compare"):
        compare([])
    one = read_run(write_run(tmp_path / "run"))
    with pytest.raises(ValueError, match="named twice"):
        compare([one, one])


def test_other_data_have_no_difference_and_long_lists_of_settings_are_cut():
    one = run("a", 0, 0.6, settings={f"optim.k{i:02}": "1" for i in range(12)}, configured=True)
    two = run(
        "b", 0, 0.7, data="photos", settings={f"optim.k{i:02}": "2" for i in range(12)}, configured=True
    )
    comparison = compare([one, two])
    assert comparison.groups[1].scores["top1"].difference is None
    told = [line for line in comparison.warnings if "settings" in line or "different optim" in line]
    assert len(told) == 9
    assert told[-1] == "and with 4 more settings that differ"
