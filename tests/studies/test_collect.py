"""Run folders to an outcome: every number is where its file has it."""

import hashlib
import json

import pytest

from botvision.metrics.bootstrap import ImageSampler
from botvision.studies.outcome import RunCost, collect
from botvision.studies.report import sections
from botvision.studies.statistics import analyse, judge
from tests.studies.files import plan_of
from tests.studies.test_plan import TWO_SEEDS, finish

PLACES = ("minutes: 2", "minutes: 2\n    at: {image-size: [16, 24]}")
SUMMARY = {
    "task": "classify", "model": "m", "data": "drawn", "epochs": 25, "image_size": [16, 16],
    "precision": "32-true", "params": 1000, "macs": 2000, "train_images": 64, "val_images": 32,
    "step_ms": 1.5, "train_seconds": 1800.0, "peak_memory_mb": 300.0, "hardware": "a CPU",
    "commit": "abc", "versions": {"torch": "2.11"},
}  # fmt: skip
TOP1 = {"r-s4": 0.5, "bot-s4": 0.75, "r-s7": 0.25, "bot-s7": 0.5}


def run_all(plan, names=tuple(TOP1), **changes):
    for run in plan.runs:
        if run.name in names:
            finish(run, 1)
            values = {**SUMMARY, "seed": run.seed, "top1": TOP1[run.name], **changes}
            (run.folder / "summary.json").write_text(json.dumps(values))
            rows = "epoch,step,train_loss,val_top1\n1,4,0.7,0.25\n2,8,0.5,nan\n"
            (run.folder / "metrics.csv").write_text(rows)
            (run.folder / "eval.json").write_text(json.dumps({"top1": TOP1[run.name]}))
            (run.folder / "eval-image_size-24.json").write_text(json.dumps({"top1": 0.125, "count": 30}))
    return plan


def test_everything_is_found(tmp_path):
    outcome = collect(run_all(plan_of(tmp_path, TWO_SEEDS, PLACES)))
    assert (outcome.name, outcome.scale, outcome.question) == ("tiny", "cpu", "Which of two?")
    assert [metric.chance for metric in outcome.metrics.values()] == [0.5]
    r, bot = outcome.arms
    assert (r.baseline, bot.baseline, r.label, bot.label) == (None, "r", "ResNet", "BoTNet")
    assert (bot.published, bot.source, r.published, r.source) == ({"top1": 0.125}, "a table", {}, "")
    assert bot.settings == {"model.name": "botnet14_nano", "model.args.attn_drop": "0.1"}
    assert r.settings == {"model.name": "resnet14_nano", "model.args.attn_drop": "not set"}
    assert r.trained_at == {"image-size": 16}
    assert [(run.seed, run.scores) for run in bot.runs] == [(4, {"top1": 0.75}), (7, {"top1": 0.5})]
    assert bot.runs[0].cost == RunCost(1000, 2000, step_ms=1.5, peak_mb=300, train_seconds=1800)
    assert [row["train_loss"] for row in r.runs[0].curve] == [0.7, 0.5]
    places = [(e.at, e.scores["top1"], e.images) for e in r.runs[0].evaluations]
    assert places == [(16, 0.5, 32), (24, 0.125, 30)]
    assert outcome.places("image-size")[-1] == ("image-size", 24)
    assert judge(outcome, outcome.claims[1], "top1").terms == (
        *((1, "bot", ("image-size", 24)), (-1, "r", ("image-size", 24))),
    )
    assert outcome.common["seeds"] == "4, 7"
    assert outcome.environment["hours of training, summed"] == "2.0"
    assert outcome.warnings == ()
    assert outcome.notes[0] == "Too small to show anything."
    assert len(outcome.notes) == 2  # and how steps were timed
    assert outcome.commands == ("botvision study tiny.yaml --scale cpu",)


def test_another_number_of_threads_is_a_note(tmp_path):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS), ("r-s4", "bot-s4", "r-s7", "bot-s7"))
    for run, threads in zip(plan.runs, ("1 thread", "2 threads", "2 threads", "2 threads"), strict=True):
        path = run.folder / "summary.json"
        path.write_text(path.read_text().replace("a CPU", f"a CPU, {threads}"))
    outcome = collect(plan)
    assert outcome.warnings == ()
    told = "The runs had a CPU, 1 thread, a CPU, 2 threads: the same seed gives slightly other digits there."
    assert told in outcome.notes


def test_what_is_missing_or_other_is_said(tmp_path):
    names = ("r-s4", "bot-s4", "r-s7")
    plan = run_all(plan_of(tmp_path, TWO_SEEDS, data__num_images="99"), names)
    path = plan.runs[0].folder / "summary.json"
    path.write_text(path.read_text().replace("a CPU", "another").replace("2.11", "2.12"))
    outcome = collect(plan)
    assert outcome.warnings == (
        "1 of 4 runs are missing: bot-s7",
        "not the study as its file states it: data.num_images 99",
        "the runs come from different hardware: a CPU, another",
    )
    assert "the runs come from different versions of torch: 2.11, 2.12" in outcome.notes
    verdict = judge(outcome, outcome.claims[1], "top1")
    assert (verdict.word, verdict.sentence) == (
        "not measured yet",
        "top-1: nothing has been measured there yet.",
    )


def test_where_things_lie_is_no_deviation(tmp_path):
    weights = tmp_path / "mine.safetensors"
    weights.write_bytes(b"weights")
    plan = run_all(plan_of(tmp_path, TWO_SEEDS, model__weights=str(weights)))
    outcome = collect(plan)
    assert outcome.warnings == ()
    assert outcome.common["weights"] == f"mine.safetensors ({hashlib.sha256(b'weights').hexdigest()[:12]})"
    assert outcome.commands == ("botvision study tiny.yaml --scale cpu --model.weights mine.safetensors",)
    named = collect(run_all(plan_of(tmp_path / "named", TWO_SEEDS, model__weights="resnet50.a1_in1k")))
    assert named.warnings == ("not the study as its file states it: model.weights resnet50.a1_in1k",)
    assert "weights" not in named.common


def test_measurements_that_are_missing_and_other_code_are_said(tmp_path):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS, PLACES))
    (plan.runs[1].folder / "eval-image_size-24.json").unlink()
    path = plan.runs[0].folder / "summary.json"
    path.write_text(path.read_text().replace('"abc"', '"def"'))
    outcome = collect(plan)
    assert outcome.warnings == (
        "1 measurement is missing: bot-s4 at image-size 24",
        "the runs differ in commit of botvision: abc, def",
    )
    places = next(
        part for part in sections(analyse(outcome, ImageSampler(10)), drawn=False) if "size" in part.title
    )
    grid, between = places.grids
    assert [row[-1] for row in grid.rows] == ["12.50 ± 0.00", "12.50 (n 1)"]
    other, own = (dict(zip(between.header, row, strict=True)) for row in between.rows)
    assert (own["arm"], own["against"], own["over seeds"]) == ("BoTNet (at 16)", "ResNet", "+25.00 to +25.00")
    assert own["difference"] == "+25.00 ± 0.00"
    # one pair: no interval over seeds; the claim speaks of this place
    assert other == {**own, "arm": "BoTNet (at 24)", "difference": "+0.00", "over seeds": "",
                     "by seed": "+0.00", "claim": "inconclusive"}  # fmt: skip
    assert between.note.endswith(" No interval over images where the runs kept nothing of single images.")


def test_a_measurement_is_found_again_where_its_data_moved(tmp_path):
    """Made before or after: the name of the file tells which, and either will do."""
    photos = ("recipe: generated_resnet14_nano", "recipe: photos_resnet50")
    changes = (TWO_SEEDS, PLACES, photos, ("model.name: botnet14_nano", "model.name: botnet50"))
    here, there = tmp_path / "here", tmp_path / "there"
    here.mkdir()
    run_all(plan_of(tmp_path, *changes, data__root=str(here)), task="classify")
    here.rename(there)
    plan = plan_of(tmp_path, *changes, data__root=str(there))
    run = plan.runs[0]
    assert run.unmeasured() == []
    (run.folder / "eval-image_size-24.json").unlink()
    (wanted,) = run.unmeasured()
    words = run.measuring(wanted)
    assert words[:2] == ["eval", str(run.folder)]
    assert set(words[2:]) == {"--data.image_size=24", f"--data.root={there}"}
    (run.folder / "eval-there-image_size-24.json").write_text(json.dumps({"top1": 0.25, "count": 30}))
    assert run.unmeasured() == []
    assert collect(plan).arms[0].runs[0].evaluations[1].scores == {"top1": 0.25}
    without = collect(plan_of(tmp_path, *changes))  # a report needs no data, and says where they were
    assert without.commands == ("botvision study tiny.yaml --scale cpu --data.root here",)


def test_intervals_of_the_runs_own_evaluation_are_places(tmp_path):
    """As an evaluation by distance has them: edges, images, part that is right."""
    axis = ("{title: Image size (pixels), key: data.image_size}", "{title: px, table: top1_by_distance}")
    plan = run_all(plan_of(tmp_path, TWO_SEEDS, axis, data__source="pointing", data__augment="none"))
    for run in plan.runs:
        table = {"edges": [16, 32, 64], "count": [10, 0], "top1": [0.75, None]}
        (run.folder / "eval.json").write_text(json.dumps({"top1_by_distance": table}))
        (run.folder / "predictions.npz").touch()
    outcome = collect(plan)
    (place,) = outcome.arms[0].runs[0].evaluations  # without images there is no score
    assert (place.at, place.scores, place.images, place.label) == (24, {"top1": 0.75}, 10, "16 to 32")
    assert (place.table, place.group) == (plan.runs[0].folder / "eval.json", 0)
    assert outcome.arms[0].trained_at == {}
    (plan.runs[0].folder / "eval.json").write_text("{}")
    with pytest.raises(ValueError, match=r"eval\.json: there is no top1_by_distance"):
        collect(plan)


def test_detectors_have_box_and_mask_scores(tmp_path):
    changes = (
        ("metrics: {top1: {title: top-1, chance: 0.5}}", "metrics: {mask_ap: {title: mask AP}}"),
        ("{top1: 12.5}", "{mask_ap: 12.5}"),
        ("generated_resnet14_nano", "shapes_resnet14_nano"),
    )
    plan = plan_of(tmp_path, TWO_SEEDS, PLACES, *changes)
    run_all(plan, task="detect", box_ap=0.5, mask_ap=0.375)
    for run in plan.runs:
        found = {"bbox": {"ap": 0.5}, "segm": {"ap": 0.25}}
        (run.folder / "eval-image_size-24.json").write_text(json.dumps(found))
    run = collect(plan).arms[0].runs[0]
    assert run.scores == {"mask_ap": 0.375}
    assert [e.scores for e in run.evaluations] == [{"mask_ap": 0.375}, {"mask_ap": 0.25}]
    tables = [e.table and e.table.name for e in run.evaluations]
    assert tables == ["eval.json", "eval-image_size-24.json"]


def test_a_run_that_found_no_part_has_no_side_accuracy(tmp_path):
    changes = (
        (
            "metrics: {top1: {title: top-1, chance: 0.5}}",
            "metrics: {side_accuracy: {title: sides}, box_ap: {title: AP}}",
        ),
        ("{top1: 12.5}", "{box_ap: 12.5}"),
        ("generated_resnet14_nano", "shapes_resnet14_nano"),
    )
    plan = plan_of(tmp_path, TWO_SEEDS, *changes)
    run_all(plan, task="detect", box_ap=0.5, mask_ap=0.375, side_accuracy=0.75)
    summary = plan.runs[0].folder / "summary.json"
    values = json.loads(summary.read_text())
    summary.write_text(json.dumps(values | {"side_accuracy": None}))
    assert [run.scores for run in collect(plan).arms[0].runs] == [
        {"box_ap": 0.5},
        {"side_accuracy": 0.75, "box_ap": 0.5},
    ]
    summary.write_text(json.dumps({key: values[key] for key in values if key != "side_accuracy"}))
    with pytest.raises(ValueError, match="side_accuracy is None, expected a number"):
        collect(plan)


@pytest.mark.parametrize("value", [None, "good", True])
def test_a_score_that_is_no_number_is_named(tmp_path, value):
    plan = run_all(plan_of(tmp_path, TWO_SEEDS, PLACES))
    (plan.runs[0].folder / "eval-image_size-24.json").write_text(json.dumps({"top1": value}))
    with pytest.raises(ValueError, match=rf"r-s4/eval-image_size-24\.json: top1 is {value!r}, expected"):
        collect(plan)


def test_nothing_finished(tmp_path):
    with pytest.raises(ValueError, match="no run of the study tiny is finished"):
        collect(plan_of(tmp_path))
