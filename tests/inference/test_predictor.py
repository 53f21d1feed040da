"""The predictor with a model whose answers are known by hand: logits are 10 times each channel's mean."""

import json
import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from botvision.backbones.models import create_model
from botvision.backbones.weights import save_model
from botvision.config.data import DataConfig
from botvision.data.classification import open_splits
from botvision.data.left_out import LeftOut
from botvision.data.sources import to_tensor
from botvision.inference import predictor as module
from botvision.inference import writers
from botvision.inference.predictor import Predictor, find_images, run_on_files
from botvision.inference.writers import picture_names, write_predictions

DESCRIPTION = {
    "name": "colours", "task": "classify", "classes": ["red", "green", "blue"],
    "image_size": [8, 8], "mean": [0.0, 0.0, 0.0], "std": [1.0, 1.0, 1.0],
}  # fmt: skip
WINNER = math.exp(10) / (math.exp(10) + 2)  # softmax of (10, 0, 0)


class ChannelMeans(nn.Module):
    """Remembers its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        self.seen.append(images)
        return 10 * images.mean(dim=(2, 3))


def predictor(**changes: object) -> Predictor:
    return Predictor(ChannelMeans(), DESCRIPTION | changes, device="cpu", batch_size=2)


def labels(results: list[dict]) -> list[str]:
    return [result["top"][0]["label"] for result in results]


@pytest.fixture
def files(tmp_path: Path) -> list[Path]:
    """Red, a broken one, green, blue."""
    for name in ("red", "green", "blue"):
        Image.new("RGB", (20, 10), "#00ff00" if name == "green" else name).save(tmp_path / f"{name}.png")
    (tmp_path / "broken.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    return [tmp_path / name for name in ("red.png", "broken.jpg", "green.png", "blue.png")]


def test_scores_are_the_softmax_of_the_logits_best_first():
    [result] = predictor().predict([Image.new("RGB", (20, 10), "#0000ff")], topk=2)
    assert result["file"] is None
    assert [(entry["label"], entry["index"]) for entry in result["top"]] == [("blue", 2), ("red", 0)]
    assert result["top"][0]["score"] == pytest.approx(WINNER, abs=1e-6)
    assert result["top"][1]["score"] == pytest.approx((1 - WINNER) / 2, abs=1e-6)


def test_paths_pictures_and_arrays_give_the_same_answer(files):
    image = Image.open(files[0])
    results = predictor().predict([files[0], str(files[0]), image, np.asarray(image)])
    assert labels(results) == ["red"] * 4
    assert [result["file"] for result in results] == [str(files[0])] * 2 + [None] * 2
    assert results[0]["top"] == results[1]["top"] == results[2]["top"] == results[3]["top"]
    assert len(results[0]["top"]) == 3  # never more than there are classes


@pytest.mark.parametrize("mode", ["L", "LA", "P", "RGBA", "CMYK", "1", "I;16", "F", "LAB"])
def test_every_mode_of_pil_is_converted_as_a_file_of_that_mode(tmp_path, mode):
    if mode in ("I;16", "F"):
        image = Image.fromarray(
            np.linspace(0, 60000, 64).reshape(8, 8).astype("uint16" if mode == "I;16" else "f4")
        )
    else:
        image = Image.new("RGB", (8, 8), "#c04020")
        image = Image.merge("LAB", image.split()) if mode == "LAB" else image.convert(mode)
    image.save(tmp_path / "image.tif")
    by_file, by_picture = predictor().predict([tmp_path / "image.tif", image])
    assert by_file["top"] == by_picture["top"]


def test_transparent_is_white_in_pictures_and_arrays():
    clear = np.zeros((8, 8, 4), dtype=np.uint8)
    clear[0, 0] = 255  # or nothing would be seen but white
    one = predictor()
    one.predict([Image.fromarray(clear), clear])
    assert isinstance(one.model, ChannelMeans)
    assert torch.equal(one.model.seen[0], torch.ones(2, 3, 8, 8))


def test_orientation_of_a_picture_is_applied():
    image = Image.new("RGB", (8, 8), "black")
    image.paste("white", (0, 0, 8, 4))  # upper half
    exif = image.getexif()
    exif[0x0112] = 3  # stored upside down
    one = predictor()
    one.predict([image])
    assert isinstance(one.model, ChannelMeans)
    seen = one.model.seen[0][0, 0]
    assert (float(seen[:4].max()), float(seen[4:].min())) == (0.0, 1.0)


def test_the_network_sees_exactly_what_the_evaluation_of_a_run_shows_it(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for k, name in enumerate("ab"):
            (tmp_path / split / name).mkdir(parents=True)
            pixels = rng.integers(0, 256, (23 + k, 41, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / split / name / "0.png")
    config = DataConfig(root=str(tmp_path), image_size=(12, 16), augment="imagenet", eval_crop=0.8)
    val = open_splits(config).val
    crop = config.crop_of_eval
    one = predictor(image_size=[12, 16], mean=config.mean, std=config.std, crop=crop)
    one.predict([val.name_of(0), val.name_of(1)])
    assert isinstance(one.model, ChannelMeans)
    assert torch.equal(one.model.seen[0], torch.stack([val[0][0], val[1][0]]))


def test_large_images_are_not_collected_to_a_batch(files, monkeypatch):
    monkeypatch.setattr(module, "_VALUES_AT_ONCE", 700)
    sizes = []

    def run(batch):
        sizes.append(len(batch))
        return batch

    names = [files[0], files[1], files[0], files[0], files[2]]
    found = list(run_on_files(names, 8, to_tensor, run, shown=None))
    assert sizes == [2, 2]
    assert [each.file for each in found] == [str(name) for name in names]


def test_a_bad_file_is_reported_in_its_place_and_stops_nothing(files):
    found = list(
        predictor().predict_files([*files, files[0].with_name("missing.png")], topk=1, keep_pictures=True)
    )
    assert [p.found[0]["label"] if p.found else None for p in found] == ["red", None, "green", "blue", None]
    assert [p.error is None for p in found] == [True, False, True, True, False]
    for bad in (found[1], found[4]):
        assert bad.error is not None
        assert Path(bad.file).name in bad.error
        assert "\n" not in bad.error
    assert found[0].picture is not None
    assert found[0].picture.size == (20, 10)


def test_a_picture_alone_and_in_a_batch_gets_the_same_answer():
    torch.manual_seed(0)
    model = create_model("botnet14_tiny", num_classes=3, stem="cifar").eval()
    rng = np.random.default_rng(0)
    images = [rng.integers(0, 256, (32, 32, 3), dtype=np.uint8) for _ in range(3)]
    one = Predictor(model, DESCRIPTION | {"image_size": [32, 32]}, device="cpu", batch_size=3)
    together = one.predict(images)
    for image, result in zip(images, together, strict=True):
        alone = one.predict([image])[0]
        assert [e["index"] for e in alone["top"]] == [e["index"] for e in result["top"]]
        assert [e["score"] for e in alone["top"]] == pytest.approx(
            [e["score"] for e in result["top"]], abs=1e-6
        )


@pytest.fixture
def run_folder(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    kwargs = {"num_classes": 3, "stem": "cifar"}
    model = create_model("botnet14_tiny", **kwargs)
    extra = {key: DESCRIPTION[key] for key in ("classes", "mean", "std", "task")}
    save_model(
        model, tmp_path / "run" / "model", "botnet14_tiny", kwargs, image_size=[32, 32], crop=1.0, **extra
    )
    return tmp_path / "run"


def test_from_run_takes_the_run_or_its_model_folder(run_folder, files):
    ways = [Predictor.from_run(folder, device="cpu") for folder in (run_folder, str(run_folder / "model"))]
    first, second = (way.predict([files[0]]) for way in ways)
    assert first == second
    assert ways[0].classes == ["red", "green", "blue"]
    assert not ways[0].model.training


def test_from_run_names_what_is_missing(run_folder, tmp_path):
    with pytest.raises(ValueError, match="nowhere: no such run folder"):
        Predictor.from_run(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"model\.json: missing; is .*empty a run folder"):
        Predictor.from_run(tmp_path / "empty")
    path = run_folder / "model" / "model.json"
    description = json.loads(path.read_text())
    del description["classes"]
    path.write_text(json.dumps(description))
    with pytest.raises(ValueError, match=r"model\.json: lacks 'classes'"):
        Predictor.from_run(run_folder)
    path.write_text(json.dumps(description | {"classes": ["a", "b", "c"], "image_size": 32}))
    with pytest.raises(
        ValueError, match=r"model\.json: image_size, mean, std or crop is not made of numbers"
    ):
        Predictor.from_run(run_folder)
    (run_folder / "model" / "model.safetensors").write_bytes(b"no weights")
    with pytest.raises(ValueError, match=r"model\.safetensors"):
        Predictor.from_run(run_folder)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (np.zeros((8, 8, 3)), "dtype float64, expected uint8"),
        (np.zeros((8, 8, 2), dtype=np.uint8), r"shape \(8, 8, 2\)"),
        (np.zeros((0, 8, 3), dtype=np.uint8), "has no pixels"),
        (17, "int is not an image"),
    ],
)
def test_what_is_no_image_is_refused(image, words):
    with pytest.raises(ValueError, match=words):
        predictor().predict([image])


def test_impossible_settings_are_refused():
    with pytest.raises(ValueError, match="topk is 0, expected at least 1"):
        predictor().predict([np.zeros((8, 8), dtype=np.uint8)], topk=0)
    with pytest.raises(ValueError, match="batch size is 0"):
        Predictor(ChannelMeans(), DESCRIPTION, batch_size=0)
    with pytest.raises(ValueError, match="device: expected auto, cpu"):
        Predictor(ChannelMeans(), DESCRIPTION, device="abacus")
    with pytest.raises(ValueError, match="3 outputs, but 2 classes"):
        predictor(classes=["a", "b"]).predict([np.zeros((8, 8), dtype=np.uint8)])


def test_find_images_walks_down_by_name_and_content_and_leaves_results_out(files, tmp_path):
    (tmp_path / "deep" / "er").mkdir(parents=True)
    Image.new("RGB", (2, 2)).save(tmp_path / "deep" / "er" / "nameless", "PNG")
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "IMG_1.HEIC").write_bytes(b"\0\0\0\x18ftypheic")
    (tmp_path / ".thumbs").mkdir()
    for name in ("._blue.png", ".thumbs/blue.png"):
        (tmp_path / name).write_bytes(b"junk")
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "out").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "out" / "old.png")
    left_out = LeftOut()
    found = find_images([tmp_path, files[0]], tmp_path / "out", left_out)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in found)
    assert names == ["blue.png", "broken.jpg", "deep/er/nameless", "green.png", "red.png"]
    assert left_out.notes() == [
        f"left out: 2 files, hidden ({tmp_path}/.thumbs/blue.png, {tmp_path}/._blue.png)",
        f"left out: 1 file, cannot be read (HEIC, without pillow-heif) ({tmp_path}/IMG_1.HEIC)",
        f"left out: 2 files, no image ({tmp_path}/notes.txt, {tmp_path}/pipe)",
    ]
    with pytest.raises(ValueError, match="nothing-here: no such file or folder"):
        find_images([tmp_path / "nothing-here"])


@pytest.mark.parametrize("inside", ["train", "test/val", "cat"])
def test_find_images_minds_no_name_of_a_folder(tmp_path, inside):
    (tmp_path / "set" / inside).mkdir(parents=True)
    wanted = [tmp_path / "a.png", tmp_path / "set" / "b.png", tmp_path / "set" / inside / "c.png"]
    for path in wanted:
        Image.new("RGB", (2, 2)).save(path)
    assert find_images([tmp_path]) == wanted


def test_picture_names_are_distinct_and_follow_the_folders():
    files = [Path(p) for p in ("/a/x/1.png", "/a/x/1.gif", "/a/X/1.PNG", "/a/y/1.png", "/a/x/1.gif.png")]
    names = list(picture_names(files))
    assert names[:2] == ["x/1.jpg", "x/1.gif.jpg"]
    assert names[3] == "y/1.jpg"
    assert len({name.lower() for name in names}) == 5
    assert list(picture_names([Path("/a/b/c.webp")])) == ["c.jpg"]
    assert list(picture_names([])) == []


def test_naming_a_picture_costs_the_same_however_many_there_are(monkeypatch):
    made = 0
    original = Path.as_posix

    def count(path: Path) -> str:
        nonlocal made
        made += 1
        return original(path)

    monkeypatch.setattr(Path, "as_posix", count)
    assert len(set(picture_names([Path(f"/a/{k}.png") for k in range(300)]))) == 300
    assert made == 300  # one candidate each: the first is free


def test_without_pictures_none_is_named_or_drawn(files, tmp_path, monkeypatch):
    monkeypatch.setattr(writers, "picture_names", lambda _: pytest.fail("named"))
    one, out = predictor(), tmp_path / "out"
    found = one.predict_files(files, 1, keep_pictures=True)
    assert len(list(write_predictions(found, out, files, one.description, pictures=False))) == 4
    assert [path.name for path in out.iterdir()] == ["predictions.json"]


def test_a_file_name_that_is_no_text_is_written_so_that_it_can_be_found_again(tmp_path):
    path = Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.png"))
    try:
        Image.new("RGB", (8, 8), "red").save(path)
    except OSError:
        pytest.skip("this file system takes UTF-8 names alone")
    one, out = predictor(), tmp_path / "out"
    files = find_images([tmp_path])
    list(write_predictions(one.predict_files(files, 1, keep_pictures=True), out, files, one.description))
    [row] = json.loads((out / "predictions.json").read_text(encoding="utf-8"))["predictions"]
    assert Path(row["file"]) == path
    assert (out / row["picture"]).is_file()


def test_a_folder_linked_into_itself_is_walked_once(tmp_path):
    (tmp_path / "a").mkdir()
    Image.new("RGB", (2, 2)).save(tmp_path / "a" / "one.png")
    (tmp_path / "self").symlink_to(tmp_path)
    (tmp_path / "a" / "up").symlink_to("..")
    (tmp_path / "b").symlink_to("a")  # no loop: a folder may have two names
    assert find_images([tmp_path]) == [tmp_path / "a" / "one.png", tmp_path / "b" / "one.png"]


def test_written_results_hold_every_file_and_nothing_temporary(files, tmp_path):
    out = tmp_path / "out"
    one = predictor()
    done = list(
        write_predictions(one.predict_files(files, 1, keep_pictures=True), out, files, one.description)
    )
    assert len(done) == 4
    results = json.loads((out / "predictions.json").read_text())
    assert (results["model"], results["task"], results["classes"]) == (
        "colours",
        "classify",
        ["red", "green", "blue"],
    )
    assert [Path(row["file"]).name for row in results["predictions"]] == ["red.png", "green.png", "blue.png"]
    assert [Path(row["file"]).name for row in results["failed"]] == ["broken.jpg"]
    for row in results["predictions"]:
        with Image.open(out / row["picture"]) as picture:
            picture.load()
            assert picture.format == "JPEG"
    everything = sorted(path.name for path in out.rglob("*") if path.is_file())
    assert everything == ["blue.jpg", "green.jpg", "predictions.json", "red.jpg"]


def test_deploy_needs_no_training_code():
    code = (
        "import sys, botvision.inference.predictor, botvision.inference.writers\n"
        "bad = [m for m in sys.modules if m.split('.')[0] in ('lightning', 'matplotlib')"
        " or m.startswith('botvision.training')]\n"
        "assert not bad, bad"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.filterwarnings("error")
def test_real_odd_images_are_read_or_named():
    data = Path(os.environ.get("BOTVISION_DATA", Path(__file__).parents[3] / "shared" / "data"))
    folder = data / "odd_images"
    if not folder.is_dir():
        pytest.skip(f"no real data: {folder} is missing")
    images = find_images([folder])
    found = list(predictor().predict_files(images))
    assert len(found) == len(images) == len(json.loads((folder / "manifest.json").read_text()))
    bad = [p for p in found if p.error is not None]
    assert all(p.file in p.error and "\n" not in p.error for p in bad if p.error)
    assert not [p.file for p in bad if "/plain_jpeg/" in p.file or "/exif_orientation/" in p.file]
    assert len(found) - len(bad) >= 57
