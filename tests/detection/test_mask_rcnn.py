"""The detector as torchvision's: what it takes, gives and refuses."""

from typing import Any

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection import FasterRCNN, MaskRCNN

import botvision
from botvision.config.detector import DetectorOptions
from botvision.detection.mask_rcnn import faster_rcnn, mask_rcnn
from tests.detection.scenes import SMALL, detector, image, scene, target, total

MASK_LOSSES = {"loss_classifier", "loss_box_reg", "loss_mask", "loss_objectness", "loss_rpn_box_reg"}


@pytest.mark.parametrize("heads", ["v2", "light"])
@pytest.mark.parametrize("neck", ["fpn", "c5"])
def test_a_training_step_reaches_every_parameter(heads, neck):
    model = detector(heads=heads, neck=neck)
    assert isinstance(model, MaskRCNN)
    losses = model(*scene())
    assert set(losses) == MASK_LOSSES
    total(losses).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


def test_results_are_in_the_pixels_of_each_image():
    model = detector("botnet26_small", image_size=96).eval()
    images = [image(48, 64, 1), (255 * image(200, 120, 2)).byte()]
    with torch.no_grad():
        results = model(images)
    for result, (height, width) in zip(results, [(48, 64), (200, 120)], strict=True):
        count = len(result["boxes"])
        assert result["masks"].shape == (count, 1, height, width)
        assert result["labels"].min() >= 1
        assert result["labels"].max() <= 3
        assert result["boxes"].min() >= 0
        assert (result["boxes"].amax(0) <= torch.tensor([width, height, width, height]) + 1e-3).all()
    assert model.transform.fitted(48, 64) == (72, 96)
    assert model.transform.fitted(200, 120) == (96, 58)


def test_bytes_are_the_same_picture_as_floats():
    model = detector(masks=False).eval()
    pixels = (255 * image(64, 64)).byte()
    with torch.no_grad():
        bytes_, floats = model([pixels])[0], model([pixels / 255])[0]
    assert len(bytes_["boxes"]) > 0
    torch.testing.assert_close(bytes_, floats)


@pytest.mark.parametrize("heads", ["v2", "light"])
def test_images_without_boxes_train(heads):
    images, targets = scene()
    for empty in ([targets[0], target(80, 50, [])], [target(64, 64, []), target(80, 50, [])]):
        model = detector(heads=heads)
        losses = model(images, empty)
        assert all(loss.isfinite() for loss in losses.values())
        total(losses).backward()
        assert all(p.grad.isfinite().all() for p in model.parameters() if p.grad is not None)
        assert all(buffer.isfinite().all() for buffer in model.buffers())


def test_padding_takes_no_part_in_the_anchors_of_training():
    model = detector(heads="light", masks=False)
    images, targets = scene()
    labels = []
    original = model.rpn.compute_loss

    def note(objectness, deltas, of_anchors, regression):
        labels.extend(of_anchors)
        return original(objectness, deltas, of_anchors, regression)

    model.rpn.compute_loss = note
    model(images, targets)
    batch, _ = model.transform(images)
    strides, grids = model.backbone.strides, [x.shape[-2:] for x in model.backbone(batch.tensors).values()]
    count = model.rpn.anchor_generator.num_anchors_per_location()[0]
    for of_image, (height, width) in zip(labels, batch.image_sizes, strict=True):
        cells = [torch.zeros(grid, dtype=torch.bool) for grid in grids]
        for stride, own in zip(strides, cells, strict=True):
            own[: -(-height // stride), : -(-width // stride)] = True
        valid = torch.cat([own.flatten().repeat_interleave(count) for own in cells])
        assert not valid.all()
        assert (of_image[~valid] == -1).all()
        assert (of_image[valid] == 1).any()


def test_boxes_only():
    model = faster_rcnn("resnet14_nano", 2, DetectorOptions(**SMALL))
    assert isinstance(model, FasterRCNN)
    assert not isinstance(model, MaskRCNN)
    images, targets = scene()
    boxes_only = [{"boxes": t["boxes"], "labels": t["labels"].clamp(max=2)} for t in targets]
    assert set(model(images, boxes_only)) == MASK_LOSSES - {"loss_mask"}
    assert botvision.faster_rcnn is faster_rcnn
    assert botvision.mask_rcnn is mask_rcnn


def test_the_slides_detector_on_the_single_map():
    model: Any = mask_rcnn("botnet50", 80, neck="c5", heads="light", norm="frozen", image_size=1024)
    assert model.backbone.out_channels == 2048
    assert model.rpn.anchor_generator.sizes == ((32.0, 64.0, 128.0, 256.0, 512.0),)
    assert model.roi_heads.box_roi_pool.featmap_names == ["0"]
    assert model.backbone.body["layer4"][0].conv2.attention.position.grid == (64, 64)


def test_default_is_torchvisions_v2_on_a_resnet():
    """The same parameters by name and shape as torchvision's builder, so its weights load."""
    theirs = torchvision.models.detection.maskrcnn_resnet50_fpn_v2(weights=None, weights_backbone=None)
    ours = mask_rcnn(torchvision.models.resnet50(), 90)
    assert {k: v.shape for k, v in ours.state_dict().items()} == {
        k: v.shape for k, v in theirs.state_dict().items()
    }


@pytest.mark.parametrize(
    "make",
    [
        lambda: timm.create_model("resnet18"),
        lambda: timm.create_model("botnet14_nano", features_only=True),
        lambda: torchvision.models.resnet18(),
        lambda: botvision.from_resnet(timm.create_model("resnet14_nano"), img_size=64),
        lambda: timm.create_model("convnext_atto"),
    ],
    ids=["timm", "features_only", "torchvision", "surgery", "nested stages"],
)
def test_any_finished_backbone(make):
    backbone = make()
    first = next(backbone.parameters())
    model = detector(backbone, heads="light")
    assert model.backbone.strides == [4, 8, 16, 32, 64]
    assert any(p is first for p in model.parameters()), "a copy was made"
    losses = model(*scene())
    assert all(loss.isfinite() for loss in losses.values())


def test_half_precision_keeps_coordinates_exact():
    model = detector(heads="light")
    with torch.autocast("cpu", torch.bfloat16):
        losses = model(*scene())
        assert all(loss.isfinite() for loss in losses.values())
        result = model.eval()([image(64, 64)])[0]
    assert result["boxes"].dtype == torch.float32
    assert model.rpn.anchor_generator.cell_anchors[0].dtype == torch.float32


class Largest(TorchDispatchMode):
    """Elements of the largest tensor that any operation made."""

    elements = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.numel())
        return out


def test_inference_at_1024_holds_no_square_of_the_cells():
    model = detector(heads="light", detections=2, image_size=1024).eval()
    attention = next(m for m in model.modules() if isinstance(m, botvision.MHSA2d))
    square = attention.heads * (64 * 64) ** 2
    with torch.no_grad(), Largest() as largest:
        model([image(700, 1024)])
    assert largest.elements < square / 8
    attention.kernel = "mask"  # the test would see it
    with torch.no_grad(), Largest() as largest:
        model.backbone.body["layer4"](torch.rand(1, 128, 64, 64))
    assert largest.elements >= square


@pytest.mark.parametrize(
    ("box", "message"),
    [
        ([5, 5, 5, 20], "image 1 of the batch (image id 77): box 1 [5, 5, 5, 20] has no height or no width"),
        ([5, 5, float("nan"), 20], "box 1 [5, 5, nan, 20] has no height or no width"),
    ],
)
def test_degenerate_boxes_are_named(box, message):
    images, targets = scene()
    flat = torch.cat([targets[1]["boxes"], torch.tensor([box], dtype=torch.float32)])
    targets[1] |= {"boxes": flat, "image_id": torch.tensor(77)}
    with pytest.raises(ValueError, match="has no height") as error:
        detector()(images, targets)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"neck": "bifpn"}, "model.detector.neck: expected one of fpn, c5, got 'bifpn'"),
        ({"frozen_stages": 6}, "model.detector.frozen_stages: expected 0..5, got 6"),
        ({"channels": 0}, "model.detector.channels: expected a number above 0, got 0"),
        ({"nms": 0}, "model.detector.nms: expected above 0 and at most 1, got 0"),
        ({"score_threshold": 1.0}, "model.detector.score_threshold: expected .* got 1.0"),
        ({"masks": "yes"}, "model.detector.masks: expected bool, got 'yes'"),
        ({"anchor_sizes": (8, 16)}, "model.detector.anchor_sizes: 2 for a pyramid of 5 levels"),
        ({"anchor_sizes": (8, -1)}, r"model.detector.anchor_sizes: expected .* got \(8.0, -1.0\)"),
        ({"depth": 3}, "unknown option 'depth' of the detector; there are masks"),
        ({"backbone": "botnet15_nano"}, "unknown model 'botnet15_nano'; did you mean botnet14_nano"),
        ({"backbone_args": {"hedas": 4}}, "takes no argument 'hedas'; did you mean 'heads'"),
        ({"num_classes": 0}, "num_classes must be a whole number above 0"),
        ({"backbone": nn.Linear(2, 2)}, "Linear does not say where its feature maps are"),
        ({"backbone": timm.create_model("resnet14_nano"), "backbone_args": {"heads": 2}}, "finished network"),
    ],
)
def test_what_cannot_be_is_refused_in_one_line(arguments, message):
    arguments = {"backbone": "botnet14_nano", "num_classes": 2} | arguments
    with pytest.raises(ValueError, match=message) as error:
        mask_rcnn(**arguments)
    assert "\n" not in str(error.value)


def test_no_images():
    with pytest.raises(ValueError, match="at least one image"):
        detector().eval()([])


@pytest.mark.parametrize("label", [0, 4])
def test_labels_out_of_range_are_named(label: int):
    target = {
        "boxes": torch.tensor([[4.0, 4.0, 30.0, 30.0]]),
        "labels": torch.tensor([label]),
        "masks": torch.ones(1, 64, 64, dtype=torch.uint8),
    }
    detector = mask_rcnn("botnet14_nano", 3, heads="light", channels=16, box_channels=16)
    with pytest.raises(
        ValueError, match=rf"^image 0 of the batch: labels {label} to {label}, expected 1 to 3"
    ):
        detector([torch.rand(3, 64, 64)], [target])


def test_grey_images_are_refused():
    detector = mask_rcnn("botnet14_nano", 3, heads="light", channels=16, box_channels=16).eval()
    with pytest.raises(ValueError, match=r"^image 1 of the batch is \(1, 64, 64\), expected \(3, H, W\)"):
        detector([torch.rand(3, 64, 64), torch.rand(1, 64, 64)])
