"""Warm starts and folders."""

import json
from typing import Any

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

import botvision
from botvision.detection.weights import load_backbone, load_detector, save_detector
from tests.detection.scenes import detector, image, scene, total


def classifier(name: str = "botnet14_nano", **kwargs: Any) -> Any:
    torch.manual_seed(5)
    return botvision.create_model(name, num_classes=7, **kwargs)


def varied(values: torch.Tensor) -> torch.Tensor:
    return torch.rand(values.shape) + 0.5 if values.is_floating_point() else values + 1


def trained(model: Any) -> Any:
    """With norms as they are after training."""
    torch.manual_seed(6)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            state = module.state_dict().values()
            module.load_state_dict(dict(zip(module.state_dict(), map(varied, state), strict=True)))
    return model


def test_a_classifier_run_warms_up_the_backbone(tmp_path):
    source = classifier(img_size=96)
    botvision.save_model(source, tmp_path / "model", "botnet14_nano", {"num_classes": 7, "img_size": 96})
    model = detector()
    report = load_backbone(model, tmp_path)
    assert sorted(report.unexpected) == ["fc.bias", "fc.weight"]
    assert report.missing == report.mismatched == []
    assert [name.rpartition(".")[2] for name in report.reshaped] == ["height", "width"]
    own = model.backbone.body.state_dict()
    assert all(torch.equal(value, own[name]) for name, value in source.state_dict().items() if name in own)
    total(model(*scene())).backward()


@pytest.mark.parametrize(
    ("norm", "frozen_stages", "missing"), [("frozen", 0, 0), ("batch", 2, 0), ("group", 3, 0)]
)
def test_warm_start_into_other_norms(norm, frozen_stages, missing):
    source = classifier("resnet14_nano")
    model = detector("resnet14_nano", norm=norm, frozen_stages=frozen_stages)
    report = load_backbone(model, source.state_dict())
    assert report.unexpected == ["fc.weight", "fc.bias"]
    assert len(report.missing) == missing
    assert report.mismatched == []
    assert torch.equal(model.backbone.body["bn1"].weight, source.bn1.weight)


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
def test_a_resnet_warms_up_a_botnet(tmp_path, norm):
    """The norm behind new attention stays new: what the ResNet has there is of the removed convolution."""
    source = trained(timm.create_model("resnet14_nano"))
    save_file(source.state_dict(), tmp_path / "r.safetensors")
    model = detector(norm=norm)
    before = {
        name: value.clone() for name, value in model.backbone.body["layer4"][0].bn2.state_dict().items()
    }
    report = load_backbone(model, tmp_path / "r.safetensors", how="new")
    after = model.backbone.body["layer4"][0].bn2.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert sorted(report.missing) == [
        *(f"layer4.0.bn2.{name}" for name in sorted(before)),
        "layer4.0.conv2.attention.position.height",
        "layer4.0.conv2.attention.position.width",
        "layer4.0.conv2.attention.qkv.weight",
    ]
    assert torch.equal(model.backbone.body["layer4"][0].bn3.weight, source.layer4[0].bn3.weight)
    assert sorted(report.unexpected) == ["fc.bias", "fc.weight", "layer4.0.conv2.weight"]


@pytest.mark.parametrize("norm", ["batch", "frozen", "group"])
@pytest.mark.parametrize("how", ["taps", "fit"])
def test_attention_of_a_detector_begins_as_the_convolution_of_a_resnet(norm, how):
    source = trained(timm.create_model("resnet14_nano", zero_init_last=False))
    model = detector(norm=norm)
    images = [torch.randn(2, 3, 64, 96)] if how == "fit" else None
    report = botvision.warm_start(model, source.state_dict(), how, images)
    assert [block.name for block in report.started] == ["layer4.0.conv2"]
    assert report.started[0].how == how
    assert report.missing == report.mismatched == []
    assert sorted(report.unexpected) == ["fc.bias", "fc.weight"]
    norm_behind = model.backbone.body["layer4"][0].bn2
    assert torch.isfinite(norm_behind.weight).all()
    assert norm_behind.weight.requires_grad
    if norm == "group":  # has no statistics to adapt, and keeps scale and shift
        assert torch.equal(norm_behind.weight, source.layer4[0].bn2.weight)
    total(model(*scene())).backward()


def test_a_start_at_zero_needs_a_norm_that_trains():
    stored = trained(timm.create_model("resnet14_nano")).state_dict()
    with pytest.raises(ValueError, match=r"norm behind layer4.0.conv2 is frozen and would stay at zero"):
        botvision.warm_start(detector(norm="frozen"), stored, "zero")
    model = detector(norm="batch")
    report = botvision.warm_start(model, stored, "zero")
    assert "layer4.0.bn3.weight" in report.adapted
    total(model(*scene())).backward()
    assert model.backbone.body["layer4"][0].bn3.weight.grad.abs().sum() > 0


def test_a_fit_does_not_depend_on_what_a_detector_saw_before():
    stored = trained(timm.create_model("resnet14_nano", zero_init_last=False)).state_dict()
    torch.manual_seed(0)
    images = [torch.randn(1, 3, 64, 96) for _ in range(4)]
    fresh, used = detector(seed=3), detector(seed=3)
    used.eval()([torch.rand(3, 40, 70)])
    for model in (fresh, used):
        assert botvision.warm_start(model, stored, images=images).started[0].how == "fit"
    for name, value in fresh.backbone.body.state_dict().items():
        torch.testing.assert_close(used.backbone.body.state_dict()[name], value)


def test_a_botnet_warms_up_the_norm_behind_attention():
    source = trained(classifier())
    model = detector(norm="frozen")
    report = load_backbone(model, source.state_dict())
    assert report.missing == []
    assert torch.equal(model.backbone.body["layer4"][0].bn2.running_mean, source.layer4[0].bn2.running_mean)
    with torch.no_grad():
        x = torch.rand(1, 3, 64, 64)
        torch.testing.assert_close(model.eval().backbone.body(x)[-1], source.eval().forward_features(x))


def test_a_frozen_stage_needs_weights_of_its_attention():
    with pytest.raises(ValueError, match=r"no weights for layer4.0.conv2, which .*frozen_stages freezes"):
        load_backbone(detector(frozen_stages=5), timm.create_model("resnet14_nano").state_dict())
    assert load_backbone(detector(frozen_stages=5), classifier().state_dict()).missing == []


def test_files_of_pytorch_and_nested_names(tmp_path):
    torch.save(torchvision.models.resnet18().state_dict(), tmp_path / "resnet18.pth")
    model = detector(timm.create_model("resnet18"), heads="light")
    assert load_backbone(model, tmp_path / "resnet18.pth").missing == []
    convnext = timm.create_model("convnext_atto", num_classes=3)
    torch.save({"state_dict": convnext.state_dict()}, tmp_path / "c.pt")
    report = load_backbone(detector("convnext_atto", heads="light"), tmp_path / "c.pt")
    assert report.missing == []
    assert all(name.startswith("head.") for name in report.unexpected)


def test_another_detector_is_a_source_too():
    source = detector(seed=3)
    model = detector(seed=4)
    heads = {name: value.clone() for name, value in model.roi_heads.state_dict().items()}
    assert load_backbone(model, source.state_dict()).complete
    after = model.roi_heads.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in heads.items())
    assert torch.equal(
        model.backbone.body["layer1"][0].conv1.weight, source.backbone.body["layer1"][0].conv1.weight
    )


PREDICTORS = [
    f"roi_heads.{layer}.{kind}"
    for layer in ("box_predictor.bbox_pred", "box_predictor.cls_score", "mask_predictor.mask_fcn_logits")
    for kind in ("bias", "weight")
]


def test_a_detector_goes_on_with_other_classes(tmp_path):
    source = detector(seed=3, classes=3)
    save_detector(source, tmp_path / "model", classes=CLASSES)
    model = detector(seed=4, classes=5)
    report = botvision.warm_start(model, tmp_path)
    assert sorted(report.mismatched) == PREDICTORS
    assert report.missing == report.unexpected == []
    expected, loaded = source.state_dict(), model.state_dict()
    names = [name for name in loaded if name not in PREDICTORS]
    assert any(name.startswith("rpn.") for name in names)
    assert all(torch.equal(loaded[name], expected[name]) for name in names)
    total(model(*scene())).backward()
    same = detector(seed=4, classes=3)
    assert botvision.warm_start(same, source.state_dict()).complete


def test_a_detector_goes_on_class_by_class(tmp_path):
    source = detector(seed=3, classes=3)
    save_detector(source, tmp_path / "model", classes=["car", "bus", "van"])
    for folder in (tmp_path, tmp_path / "model", tmp_path / "model" / "model.safetensors"):
        model, own = detector(seed=4, classes=3), detector(seed=4, classes=3).state_dict()
        report = botvision.warm_start(model, folder, classes=["van", "nut", "car"])
        assert report.classes == "classes: van, car are taken over by name; new are nut"
        assert sorted(report.adapted) == PREDICTORS
        theirs, loaded = source.state_dict(), model.state_dict()
        for name in PREDICTORS:  # the background, then the classes; a box has four rows for each
            rows = [value[name].reshape(4, -1) for value in (loaded, theirs, own)]
            expected = torch.stack([rows[1][0], rows[1][3], rows[2][2], rows[1][1]])
            assert torch.equal(rows[0], expected)
    model, own = detector(seed=4, classes=3), detector(seed=4, classes=3).state_dict()
    report = botvision.warm_start(model, tmp_path, classes=["a", "b", "c"])
    assert sorted(report.mismatched) == PREDICTORS
    assert all(torch.equal(model.state_dict()[name], own[name]) for name in PREDICTORS)
    assert (
        report.classes
        == "classes: the weights know car, bus, van, none of a, b, c; layers of classes begin anew"
    )


def test_torchvisions_coco_detector_is_a_source():
    with torch.device("meta"):
        names = torchvision.models.detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    stored = {n: torch.full(v.shape, 0.5).to(v.dtype) for n, v in names.state_dict().items()}
    model: Any = botvision.mask_rcnn("resnet50", 5, norm="frozen", frozen_stages=1)
    report = botvision.warm_start(model, stored)
    assert sorted(report.mismatched) == PREDICTORS
    assert report.missing == report.unexpected == []
    assert model.backbone.body["layer4"][2].bn3.running_mean.eq(0.5).all()
    assert model.roi_heads.mask_head[0][0].weight.eq(0.5).all()


def test_a_resnet_detector_warms_up_a_botnet_detector():
    model = detector(seed=4)
    report = botvision.warm_start(model, trained(detector("resnet14_nano", seed=3)).state_dict(), "new")
    assert {name.removeprefix("backbone.body.layer4.0.").split(".")[0] for name in report.missing} == {
        *("bn2", "conv2")
    }
    assert report.unexpected == ["backbone.body.layer4.0.conv2.weight"]
    begun = botvision.warm_start(model, trained(detector("resnet14_nano", seed=3)).state_dict())
    assert [block.name for block in begun.started] == ["backbone.body.layer4.0.conv2"]
    assert begun.missing == begun.unexpected == begun.mismatched == []
    assert all(name.startswith("backbone.body.layer4.0.bn2.") for name in begun.adapted)


def test_a_warm_start_from_a_classifier_is_that_of_the_backbone():
    report = botvision.warm_start(detector(), classifier().state_dict())
    assert report.missing == report.mismatched == []
    assert report.unexpected == ["fc.weight", "fc.bias"]
    with pytest.raises(ValueError, match="the weights: no tensor fits the detector MaskRCNN"):
        botvision.warm_start(detector(), {"rpn.x": torch.zeros(1)})


def test_sources_that_are_none(tmp_path):
    (tmp_path / "broken.pth").write_bytes(b"no weights")
    (tmp_path / "broken.safetensors").write_bytes(b"no weights")
    torch.save([1, 2], tmp_path / "list.pt")
    for name in ("broken.pth", "broken.safetensors", "list.pt", "absent.pth", "absent"):
        with pytest.raises(ValueError, match=f"{name}.*: cannot be read as weights") as error:
            load_backbone(detector(), tmp_path / name)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="the weights: no tensor fits the backbone"):
        load_backbone(detector(), {"a": torch.zeros(1)})


CLASSES = ["disc", "ring", "star"]


@pytest.mark.parametrize("norm", ["batch", "frozen"])
def test_a_folder_rebuilds_the_detector(tmp_path, norm):
    model = detector("botnet14_nano", norm=norm, image_size=(64, 96), backbone_args={"heads": 2}).eval()
    categories = [{"id": 3, "name": "disc"}, {"id": 7, "name": "ring"}, {"id": 90, "name": "star"}]
    save_detector(model, tmp_path, classes=CLASSES, categories=categories, note="x")
    again, description = load_detector(tmp_path)
    assert description["task"] == "detect"
    assert description["categories"] == categories
    assert description["classes"] == CLASSES
    assert description["image_size"] == [64, 96]
    assert description["note"] == "x"
    assert not again.training
    with torch.no_grad():
        expected, result = model([image(50, 70)])[0], again([image(50, 70)])[0]
    assert len(expected["boxes"]) > 5
    torch.testing.assert_close(result, expected, rtol=0, atol=0)


def test_what_prediction_may_change(tmp_path):
    model = detector(masks=False).eval()
    save_detector(model, tmp_path, classes=CLASSES)
    again, description = load_detector(tmp_path, detections=3, score_threshold=0.2)
    assert description["categories"][2] == {"id": 3, "name": "star"}
    with torch.no_grad():
        result = again([image(64, 64)])[0]
    assert 0 < len(result["boxes"]) <= 3
    assert result["scores"].min() > 0.2


def test_folders_that_are_none(tmp_path):
    with pytest.raises(ValueError, match=r"model.json: cannot be read"):
        load_detector(tmp_path)
    botvision.save_model(classifier(), tmp_path, "botnet14_nano", {"num_classes": 7}, task="classify")
    with pytest.raises(ValueError, match="a model of task 'classify', expected 'detect'"):
        load_detector(tmp_path)
    description = {"task": "detect", "name": "botnet14_nano", "kwargs": {}}
    (tmp_path / "model.json").write_text(json.dumps(description))
    with pytest.raises(ValueError, match="expected JSON that describes a detector"):
        load_detector(tmp_path)


def test_what_cannot_be_saved(tmp_path):
    with pytest.raises(ValueError, match="of 3 classes cannot be saved with 2 class names"):
        save_detector(detector(), tmp_path, classes=["a", "b"])
    with pytest.raises(ValueError, match="from a backbone's name"):
        save_detector(detector(timm.create_model("resnet14_nano")), tmp_path, classes=CLASSES)
    assert not any(tmp_path.iterdir())
