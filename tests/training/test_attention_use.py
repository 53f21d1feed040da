"""Finished runs evaluated with their attention replaced: a classifier and a detector."""

import json
import shutil
from pathlib import Path
from typing import get_args

import pytest
import torch

import botvision as bv
from botvision.attention.ablation import Ablation, Replaced
from botvision.backbones.weights import load_model, save_model
from botvision.cli import main as cli
from botvision.cli.parser import ABLATIONS
from botvision.metrics.attention_use import load_use
from botvision.metrics.predictions import load_predictions
from botvision.training.attention_use import attention_blocks, evaluate_replaced, measure_use
from botvision.training.classify import Classification
from botvision.training.evaluation import Evaluation
from botvision.training.run import train
from tests.terminal import complaint, table
from tests.training.runs import evaluate
from tests.training.test_detect import small


@pytest.fixture
def run(mattering: Path, tmp_path: Path) -> Path:
    """A copy to write into."""
    return shutil.copytree(mattering, tmp_path / "run")


@pytest.fixture(scope="module")
def mattering(whole_run: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The tiny classifier, whose attention is made to matter."""
    folder = shutil.copytree(whole_run, tmp_path_factory.mktemp("mattering") / "run")
    network, description = load_model(folder / "model")
    with torch.no_grad():
        network.get_submodule("layer4.0.bn3").weight.fill_(1.0)  # pyrefly: ignore
    kwargs = description["kwargs"]
    facts = {key: description[key] for key in ("classes", "image_size", "mean", "std", "crop", "task")}
    save_model(network, folder / "model", description["name"], kwargs, **facts)
    evaluate(folder)
    return folder


def unchanged(folder: Path) -> dict[str, bytes]:
    names = ("eval.json", "predictions.npz", "confusion.png", "summary.json")
    return {name: (folder / name).read_bytes() for name in names}


def test_as_trained_gives_the_digits_of_the_run(run: Path):
    before = unchanged(run)
    metrics, use = evaluate_replaced(Evaluation(run), Replaced("as-trained"))
    own = json.loads((run / "eval.json").read_text())
    assert json.loads((run / "eval-attention-as-trained.json").read_text()) == own
    assert (metrics.top1, use.as_trained) == (own["top1"], {"top1": own["top1"]})
    assert use.effects[0].contributions["top1"].mean == 0.0
    assert unchanged(run) == before


def test_zero_has_files_and_numbers_of_its_own(run: Path, capsys: pytest.CaptureFixture[str]):
    before = unchanged(run)
    assert cli.main(["eval", str(run), "--attention", "zero", "--block", "1"]) == 0
    out = capsys.readouterr().out
    names = {path.name for path in run.glob("*attention-zero*")}
    stem = "attention-zero-block-1"
    assert names == {f"eval-{stem}.json", f"confusion-{stem}.png", f"predictions-{stem}.npz"}
    assert unchanged(run) == before
    own, found = (json.loads((run / name).read_text()) for name in ("eval.json", f"eval-{stem}.json"))
    assert own["loss"] != found["loss"]
    line = next(line for line in out.splitlines() if line.startswith("attention zero"))
    top1 = [f"{100 * each['top1']:.1f} %" for each in (found, own)]
    assert line.startswith(f"attention zero in layer4.0: top-1 {top1[0]} against {top1[1]} as trained, ")
    assert line.endswith(", over 40 images")
    assert f"written: {run / f'eval-{stem}.json'}, {run / f'confusion-{stem}.png'}\n" in out


def test_other_images_are_measured_as_trained_too(run: Path):
    """An evaluation of other images that lies there may be of weights that were trained on since."""
    (run / "eval-train.json").write_text("{}")
    _, use = evaluate_replaced(Evaluation(run, "train", {"data.num_images": "20"}), Replaced("even"))
    assert use.images == 20
    assert use.as_trained["top1"] == evaluate(run, "train", {"data.num_images": "20"}).top1
    assert (run / "eval-train-num_images-20-attention-even.json").is_file()
    assert not list(run.glob("*as-trained*"))


def test_all_ways_at_once(run: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch):
    before, names = unchanged(run), {path.name for path in run.iterdir()}
    original, opened = Classification.open_split, []
    monkeypatch.setattr(Classification, "open_split", lambda *given: opened.append(given) or original(*given))
    assert cli.main(["eval", str(run), "--attention", "all"]) == 0
    assert len(opened) == 1  # for all evaluations
    out = capsys.readouterr().out
    assert {path.name for path in run.iterdir()} == names | {"attention_use.json"}
    assert unchanged(run) == before
    use = load_use(run / "attention_use.json")
    assert use is not None
    assert use.sentence() in out.splitlines()
    ways = ["zero", "even", "own", "shuffled", "content", "position"]
    assert [(each.how, each.block) for each in use.effects] == [(how, None) for how in ways]
    rows = table(out, "attention")
    assert [row[0] for row in rows[1:]] == ["as trained", *ways]
    for each in use.effects:
        metrics, _ = evaluate_replaced(Evaluation(run), Replaced(each.how))  # pyrefly: ignore
        assert each.scores["top1"] == metrics.top1
        right = [
            load_predictions(path).accuracy(torch.ones(1, 40, dtype=torch.int32).numpy())[0]
            for path in (run / "predictions.npz", run / f"predictions-attention-{each.how}.npz")
        ]
        assert each.contributions["top1"].mean == pytest.approx(right[0] - right[1])


def test_progress_goes_once_through_all_evaluations(run: Path):
    steps: list[tuple[str, int, int]] = []
    use = measure_use(
        Evaluation(run), lambda label, done, total: steps.append((label, done, total)), thorough=False
    )
    assert (run / "attention_use.json").is_file()
    assert [each.how for each in use.effects] == ["zero", "even"]
    assert steps[-1] == ("evaluating", 120, 120)  # the run's own evaluation is there already
    assert [done for _, done, _ in steps] == sorted(done for _, done, _ in steps)


def test_a_detector(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    config = small(train__epochs=1, model__args={"c4_blocks": [1], "position": "content"})
    folder = train(config, tmp_path / "run", progress=False)
    own = (folder / "eval.json").read_bytes()
    assert attention_blocks(Evaluation(folder)) == {"layer3.0": "content", "layer4.0": "content"}
    assert cli.main(["eval", str(folder), "--attention", "as-trained"]) == 0
    assert (folder / "eval-attention-as-trained.json").read_bytes() == own
    assert cli.main(["eval", str(folder), "--attention", "all"]) == 0
    assert (folder / "eval.json").read_bytes() == own
    use = load_use(folder / "attention_use.json")
    assert use is not None
    assert list(use.as_trained) == ["box_ap", "mask_ap"]
    assert use.as_trained["mask_ap"] == pytest.approx(json.loads(own)["segm"]["ap"], abs=1e-6)
    # content alone cannot be taken apart, two blocks can
    assert [(each.how, each.block) for each in use.effects] == [
        *((how, None) for how in ("zero", "even", "own", "shuffled")),
        *(("zero", name) for name in ("layer3.0", "layer4.0")),
    ]
    capsys.readouterr()
    assert complaint(capsys, "eval", str(folder), "--attention", "position") == (
        f"{folder}: block 1 has no content and position to choose from (position='content'), "
        "so 'position' does not apply"
    )


def test_mistakes_are_one_line(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    words = ["eval", str(run), "--attention", "zero"]
    missing = complaint(capsys, *words, "--block", "2", "--split", "train")
    assert missing == f"{run}: block 2: the network has attention in one block, 1"
    assert not list(run.glob("*attention*"))
    for more in (["--block", "1"], ["--attention", "all", "--block", "1"]):
        assert complaint(capsys, "eval", str(run), *more).startswith("--block: goes with one way")
    assert "invalid choice: 'none' (choose from 'as-trained'" in complaint(
        capsys, "eval", str(run), "--attention", "none"
    )
    results = tmp_path / "results.json"
    results.write_text("[]")
    line = complaint(capsys, "eval", str(results), "--attention", "zero", "--truth", str(results))
    assert line == f"--attention: goes with a run folder, and {results} is a file"
    plain = bv.create_model("resnet14_tiny", num_classes=5)
    kwargs = {"num_classes": 5}
    facts = {"classes": list("abcde"), "image_size": [16, 16], "mean": [0.5] * 3, "std": [0.2] * 3}
    save_model(plain, run / "model", "resnet14_tiny", kwargs, **facts)
    for how in ("zero", "all"):
        assert complaint(capsys, "eval", str(run), "--attention", how) == (
            f"{run}: the network has no attention; a BoTNet has, a plain ResNet has not"
        )


def test_the_command_knows_the_ablations():
    assert get_args(Ablation) == ABLATIONS
