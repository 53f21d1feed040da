"""A detector that starts from one of torchvision's by its name; the registry's download is a file of ours."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from urllib.error import URLError

import pytest
import timm
import torch
import torchvision
from torch import Tensor, nn

import botvision
from botvision.detection.pretrained import fetch
from tests.detection.scenes import detector, image

NO_CLASS = "N/A"
CATEGORIES = torchvision.models.get_model_weights("maskrcnn_resnet50_fpn")["DEFAULT"].meta["categories"]
LABELS = [label for label, name in enumerate(CATEGORIES) if name != NO_CLASS]
NAMES = [CATEGORIES[label] for label in LABELS[1:]]
# The options of our detector into which all of torchvision's fits.
FITTING: dict[str, Any] = {
    "maskrcnn_resnet50_fpn_v2": {"heads": "v2", "norm": "batch"},
    "maskrcnn_resnet50_fpn": {"heads": "light", "norm": "frozen"},
}
OLD_NAMES = {"rpn.head.conv.0.0.": "rpn.head.conv."}
OLD_NAMES |= {
    f"backbone.fpn.{part}_blocks.{n}.0.": f"backbone.fpn.{part}_blocks.{n}."
    for n in range(4)
    for part in ("inner", "layer")
}
OLD_NAMES |= {f"roi_heads.mask_head.{n}.0.": f"roi_heads.mask_head.mask_fcn{n + 1}." for n in range(4)}


class Coco:
    """A detector of torchvision's with random values, and the file that its registry would fetch."""

    def __init__(self, name: str, folder: Path) -> None:
        torch.manual_seed(0)
        size = {"min_size": 128, "max_size": 128, "rpn_post_nms_top_n_test": 40}
        model: Any = torchvision.models.get_model(name, weights=None, weights_backbone=None, **size).eval()
        with torch.no_grad():
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.get_buffer("running_mean").normal_(std=0.1)
                    module.get_buffer("running_var").uniform_(0.5, 1.5)
                    module.weight.uniform_(0.5, 1.0)
                    module.bias.normal_(std=0.3)
            first = model.backbone.body.bn1
            first.running_var.uniform_(1e-5, 1e-4)  # where an epsilon counts
            first.running_var[0] = 1e-13  # as of channels that are always 0
            first.weight.copy_(first.running_var.sqrt())
            predictor = model.roi_heads.box_predictor
            predictor.cls_score.weight.normal_(std=0.1)
            for label, category in enumerate(CATEGORIES):
                if category == NO_CLASS:  # so that leaving it out changes no probability
                    predictor.cls_score.bias[label] = -1e4
        state, self.file = model.state_dict(), folder / f"{name}.pth"
        if not name.endswith("_v2"):
            state = {self._old(key): value for key, value in state.items()}
            for module in model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eps = 0.0  # as torchvision sets it for these weights
        torch.save(state, self.file)
        self.model = model

    @staticmethod
    def _old(key: str) -> str:
        new = next((each for each in OLD_NAMES if key.startswith(each)), "")
        return OLD_NAMES.get(new, "") + key.removeprefix(new)


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Coco]:
    made: dict[str, Coco] = {}

    def get(name: str) -> Coco:
        if name not in made:
            made[name] = Coco(name, tmp_path_factory.mktemp("coco"))
        return made[name]

    return get


@pytest.fixture
def served(coco: Callable[[str], Coco], monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Coco]:
    """Has the registry of torchvision fetch the file of a detector of ours."""

    def serve(name: str) -> Coco:
        found = coco(name)

        def download(url: str, weights_only: bool = False, **_: object) -> dict[str, Tensor]:
            assert name in url
            assert weights_only
            return torch.load(found.file, weights_only=True)

        monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
        return found

    return serve


@pytest.mark.parametrize("name", FITTING)
def test_a_detector_of_torchvision_is_the_same_function(served: Callable[[str], Coco], name: str):
    source = served(name)
    model = botvision.mask_rcnn("resnet50", 80, rpn_post_nms_test=40, **FITTING[name]).eval()
    report = botvision.warm_start(model, name, classes=NAMES)
    assert report.complete, str(report)
    assert len(report.kept) > 300
    assert report.advice == report.classes == ""
    picture = image(128, 128)
    with torch.no_grad():
        (ours,), (theirs,) = model([picture]), source.model([picture])
    assert len(theirs["boxes"]) > 10
    assert ours["labels"].tolist() == [LABELS.index(label) for label in theirs["labels"].tolist()]
    for key in ("boxes", "scores", "masks"):
        torch.testing.assert_close(ours[key], theirs[key], rtol=1e-3, atol=1e-3)


def test_classes_come_by_name_and_attention_begins_in_c5(served: Callable[[str], Coco]):
    source = served("maskrcnn_resnet50_fpn").model
    model: Any = botvision.mask_rcnn("botnet50", 3, heads="light", norm="frozen", frozen_stages=2)
    own = model.roi_heads.box_predictor.cls_score.weight.detach().clone()
    report = botvision.warm_start(model, "maskrcnn_resnet50_fpn", classes=["Zebra", "nut", "traffic_light"])
    assert report.classes == "classes: Zebra, traffic_light are taken over by name; new are nut"
    assert [block.name for block in report.started] == [f"backbone.body.layer4.{n}.conv2" for n in range(3)]
    assert report.missing == report.unexpected == report.mismatched == []
    theirs = source.roi_heads
    rows = [0, CATEGORIES.index("zebra"), None, CATEGORIES.index("traffic light")]
    for row, label in enumerate(rows):
        scores, boxes = model.roi_heads.box_predictor.cls_score, model.roi_heads.box_predictor.bbox_pred
        masks = model.roi_heads.mask_predictor.mask_fcn_logits
        if label is None:
            assert torch.equal(scores.weight[row], own[row])
            continue
        assert torch.equal(scores.weight[row], theirs.box_predictor.cls_score.weight[label])
        assert torch.equal(masks.bias[row], theirs.mask_predictor.mask_fcn_logits.bias[label])
        expected = theirs.box_predictor.bbox_pred.weight.view(91, 4, -1)[label]
        assert torch.equal(boxes.weight.view(4, 4, -1)[row], expected)


def test_the_report_says_which_options_take_more_of_it(served: Callable[[str], Coco]):
    served("maskrcnn_resnet50_fpn_v2")
    model = botvision.mask_rcnn(
        "resnet50", 80, heads="light", norm="frozen", channels=64, box_channels=256, mask_convs=2
    )
    report = botvision.warm_start(model, "maskrcnn_resnet50_fpn_v2", classes=NAMES)
    assert report.advice == (
        "more of it fits with --model.detector.heads v2 --model.detector.norm batch "
        "--model.detector.box_channels 1024 --model.detector.channels 256 --model.detector.mask_convs 4"
    )
    assert str(report).endswith(report.advice)
    assert "backbone.body.conv1.weight" in report.kept
    assert "backbone.fpn.inner_blocks.0.0.weight" in report.mismatched


def test_a_detector_without_masks(served: Callable[[str], Coco]):
    source = served("maskrcnn_resnet50_fpn_v2")
    file = source.file.with_name("fasterrcnn_resnet50_fpn_v2.pth")
    state = torch.load(source.file, weights_only=True)
    torch.save({name: value for name, value in state.items() if ".mask_" not in name}, file)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            "torchvision.models._api.load_state_dict_from_url",
            lambda url, **_: torch.load(file, weights_only=True),
        )
        boxes = fetch("fasterrcnn_resnet50_fpn_v2")
    model = botvision.faster_rcnn("resnet50", 80)
    assert botvision.warm_start(model, boxes, classes=NAMES).complete
    report = botvision.warm_start(model, "maskrcnn_resnet50_fpn_v2", classes=NAMES)
    assert report.missing == report.mismatched == []
    assert all(".mask_" in name for name in report.unexpected)
    assert report.advice == ""


def test_a_classifier_takes_the_backbone_of_a_detector(served: Callable[[str], Coco]):
    source = served("maskrcnn_resnet50_fpn_v2").model
    model: Any = botvision.create_model("resnet50", num_classes=3)
    report = botvision.load_weights(model, fetch("maskrcnn_resnet50_fpn_v2"))
    assert report.missing == ["fc.weight", "fc.bias"]
    assert torch.equal(model.layer4[2].conv3.weight, source.backbone.body.layer4[2].conv3.weight)


@pytest.mark.parametrize("norm", ["batch", "frozen"])
@pytest.mark.parametrize("name", ["botnet26t_256", "sebotnet33ts_256"])
def test_a_detector_on_a_botnet_of_timm_takes_all_of_its_weights(name: str, norm: str):
    source: Any = timm.create_model(name).eval()
    for module in source.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.get_buffer("running_mean").normal_(std=0.1)
    model = detector(name, norm=norm)
    for load in (botvision.warm_start, botvision.load_backbone):
        report = load(model, source.state_dict())
        assert report.missing == report.mismatched == []
        assert all(name.startswith("head.") for name in report.unexpected)
    picture = torch.randn(1, 3, 256, 256)
    with torch.no_grad():
        found, expected = model.eval().backbone.body(picture)[-1], source.forward_features(picture)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        (
            URLError("no route\nto host"),
            r"weights of maskrcnn_resnet50_fpn_v2 cannot be fetched \(.*no route",
        ),
        ({"x": torch.zeros(1)}, "maskrcnn_resnet50_fpn_v2: other weights than torchvision's"),
    ],
)
def test_what_cannot_be_fetched_is_one_line(monkeypatch: pytest.MonkeyPatch, found: Any, message: str):
    def download(url: str, **_: object) -> dict[str, Tensor]:
        if isinstance(found, Exception):
            raise found
        return found

    monkeypatch.setattr("torchvision.models._api.load_state_dict_from_url", download)
    with pytest.raises(ValueError, match=message) as error:
        fetch("maskrcnn_resnet50_fpn_v2")
    assert "\n" not in str(error.value)
