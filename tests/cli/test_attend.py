"""The command ``attend``: pictures, numbers and mistakes."""

import json

import numpy as np
import pytest
from PIL import Image

import botvision as bv
from botvision.backbones.weights import save_model
from botvision.cli import main as cli
from botvision.config.detector import DetectorOptions
from botvision.detection.weights import save_detector
from botvision.inference.attention_maps import attention_maps
from botvision.inference.predictor import Predictor
from botvision.metrics.attention_use import AttentionUse, Contribution, Effect, save_use
from botvision.metrics.seeds import Interval
from tests.terminal import complaint, table

OPTIONS = DetectorOptions(heads="light", channels=16, box_channels=16, mask_convs=1)


def classifier(folder, name="botnet26_small", **options):
    network = bv.create_model(name, num_classes=2, **options)
    facts = {"classes": ["a", "b"], "image_size": [64, 64], "mean": [0.5] * 3, "std": [0.2] * 3}
    save_model(network, folder / "model", name=name, kwargs={"num_classes": 2, **options}, **facts)
    return folder


@pytest.fixture
def run(tmp_path):
    return classifier(tmp_path / "run", img_size=64)


@pytest.fixture
def detector(tmp_path):
    network = bv.mask_rcnn("botnet14_tiny", 1, OPTIONS, image_size=64, backbone_args={"img_size": 64})
    save_detector(network, tmp_path / "det" / "model", classes=["a"], categories=[{"id": 1, "name": "a"}])
    return tmp_path / "det"


@pytest.fixture
def photos(tmp_path):
    folder = tmp_path / "photos"
    folder.mkdir()
    for number, size in enumerate([(60, 90), (120, 70)]):
        pixels = np.random.default_rng(number).integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{number}.png")
    (folder / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return folder


def test_classifier(run, photos, tmp_path, capsys):
    out = tmp_path / "out"
    assert cli.main(["attend", str(run), str(photos), "--out", str(out)]) == 0
    captured = capsys.readouterr()
    assert captured.err.count("\n") == 1  # the broken one
    assert "broken.jpg" in captured.err
    assert "0.png: 60x90 pixels, queries at y,x 30,45" in captured.out
    assert "3 files: 2 looked at, 1 could not be" in captured.out
    assert "| 2 layer4.1 " in captured.out
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {
        "pictures/0.png", "pictures/1.png", "distance.png", "position.png", "attention.json",
    }  # fmt: skip
    found = json.loads((out / "attention.json").read_text())
    assert [block["name"] for block in found["blocks"]] == ["layer4.0", "layer4.1"]
    assert [block["stride"] for block in found["blocks"]] == [16, 32]
    assert [image["size"] for image in found["images"]] == [[60, 90], [120, 70]]
    assert len(found["failed"]) == 1
    maps = attention_maps(Predictor.from_run(run, device="cpu"), photos / "0.png")
    for block, record in zip(maps.blocks, found["images"][0]["blocks"], strict=True):
        assert record["distance_cells"] == pytest.approx(block.distance.mean((1, 2)).tolist(), abs=1e-3)
        pixels = [cells * block.stride for cells in record["distance_cells"]]
        assert record["distance_pixels"] == pytest.approx(pixels, abs=1e-2)
        assert record["entropy_bits"] == pytest.approx(block.entropy.mean((1, 2)).tolist(), abs=1e-3)
        assert record["branch_ratio"] == pytest.approx(block.branch_ratio, abs=1e-3)
    row = table(captured.out, "distance (px)")[2]
    assert row[-1] == f"{found['blocks'][1]['branch_ratio']:.2f}"
    means = [image["blocks"][0]["distance_cells"][0] for image in found["images"]]
    assert found["blocks"][0]["distance_cells"][0] == pytest.approx(np.mean(means), abs=1e-3)


def test_detector_with_chosen_queries_and_head(detector, photos, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["--at", "10,80", "--at", "59,0", "--block", "1", "--head", "2", "--out", str(out)]
    assert cli.main(["attend", str(detector / "model"), str(photos / "0.png"), *words]) == 0
    assert "queries at y,x 10,80 59,0" in capsys.readouterr().out
    assert {path.name for path in (out / "pictures").iterdir()} == {"0-y10-x80.png", "0-y59-x0.png"}
    with Image.open(out / "pictures" / "0-y10-x80.png") as one:
        alone = one.width
    assert cli.main(["attend", str(detector), str(photos / "0.png"), "--out", str(out)]) == 0
    with Image.open(out / "pictures" / "0.png") as every:  # the photo and 1 head, the photo, 4 and their mean
        assert every.width == pytest.approx(3 * alone, abs=6)
    found = json.loads((out / "attention.json").read_text())
    assert found["images"][0]["blocks"][0]["grid"] == [3, 4]


def test_content_alone_has_no_positions(run, tmp_path, photos, capsys):
    """Nor are those of an earlier model left beside its maps."""
    content, out = classifier(tmp_path / "content", "botnet14_tiny", position="content"), tmp_path / "out"
    image = str(photos / "0.png")
    assert cli.main(["attend", str(run), str(photos / "1.png"), "--out", str(out)]) == 0
    assert (out / "position.png").exists()
    capsys.readouterr()
    assert cli.main(["attend", str(content), image, "--out", str(out)]) == 0
    assert "position.png" not in capsys.readouterr().out
    assert {path.relative_to(out).as_posix() for path in out.rglob("*.*")} == {
        "pictures/0.png", "pictures/1.png", "distance.png", "attention.json",
    }  # fmt: skip


def test_what_the_attention_contributes_is_said_where_it_was_measured(run, photos, tmp_path, capsys):
    between = Contribution(0.02, Interval(0.01, 0.03))
    effect = Effect("zero", None, {"top1": 0.7}, {"top1": between})
    use = AttentionUse("val", 9, {"top1": 0.72}, ("layer4.0",), (effect,), {"steps": 6, "kept": "last"})
    (run / "summary.json").write_text('{"steps": 6, "kept": "last"}')
    save_use(use, run / "attention_use.json")
    said = "attention contributes +2.0 (95 % +1.0 to +3.0) top-1 over none"
    for folder in (run, run / "model"):
        assert cli.main(["attend", str(folder), str(photos / "0.png"), "--out", str(tmp_path / "out")]) == 0
        assert said in capsys.readouterr().out.splitlines()
    (run / "summary.json").write_text('{"steps": 12, "kept": "last"}')  # trained on since
    assert cli.main(["attend", str(run), str(photos / "0.png"), "--out", str(tmp_path / "out")]) == 0
    assert "attention contributes" not in capsys.readouterr().out


def test_mistakes_are_one_line(run, photos, tmp_path, capsys):
    image, out = str(photos / "0.png"), ["--out", str(tmp_path / "out")]
    attend = ["attend", str(run), image, *out]
    assert complaint(capsys, *attend, "--at", "60,0").endswith(
        "0.png: at 60,0: outside the image, whose y is 0 to 59 and whose x is 0 to 89"
    )
    assert "not in the middle part of the image" in complaint(capsys, *attend, "--at", "5,5")
    assert "block 3: the network has attention in 2 blocks, 1 to 2" in complaint(
        capsys, *attend, "--block", "3"
    )
    assert "head 5: the attention has 4 heads, 1 to 4" in complaint(capsys, *attend, "--head", "5")
    for text in ("5", "5,x", "5,6,7", "a", "-1,5", "-.5,5", "5,-1"):
        assert "expected a pixel y,x such as 120,85" in complaint(capsys, *attend, "--at", text)
    for words in (["10", "20"], ["10,", "20"]):
        line = complaint(capsys, *attend, "--at", *words)
        assert line == "--at: expected a pixel y,x in one word, got two; did you mean --at 10,20?"
    missing = str(tmp_path / "missing")
    assert complaint(capsys, "attend", str(run), missing) == f"{missing}: no such file or folder"
    assert complaint(capsys, "attend", missing, image) == f"{missing}: no such run folder"
    plain = str(classifier(tmp_path / "plain", "resnet14_nano"))
    assert complaint(capsys, "attend", plain, image, *out) == (
        f"{plain}: the network has no attention; a BoTNet has, a plain ResNet has not"
    )
    assert not (tmp_path / "out").exists()
