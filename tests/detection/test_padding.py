"""An image gives the same detections alone and in a batch with larger images."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

import botvision as bv
from tests.detection.scenes import detector, image, scene, total

SCORES, PIXELS = 1e-4, 0.01  # fp32 sums in another order, through some thirty layers


def same(alone: dict, together: dict) -> None:
    assert len(alone["boxes"]) > 5, "a test on nothing"
    assert alone["labels"].tolist() == together["labels"].tolist()
    torch.testing.assert_close(alone["scores"], together["scores"], rtol=0, atol=SCORES)
    torch.testing.assert_close(alone["boxes"], together["boxes"], rtol=0, atol=PIXELS)
    if "masks" in alone:
        torch.testing.assert_close(alone["masks"], together["masks"], rtol=0, atol=1e-3)


@torch.no_grad()
def check(model: nn.Module) -> None:
    """An image that fills its canvas alone, one that does not, and one that is small both ways."""
    model.eval()
    images = [image(64, 96, 1), image(77, 50, 2), image(40, 131, 3), image(160, 190, 4)]
    together = model(images)
    for single, of_batch in zip(images, together, strict=True):
        same(model([single])[0], of_batch)


@pytest.mark.parametrize("neck", ["fpn", "c5"])
@pytest.mark.parametrize("heads", ["v2", "light"])
@pytest.mark.parametrize("norm", ["batch", "group"])
@pytest.mark.parametrize("backbone", ["botnet14_nano", "resnet14_nano"])
def test_same_detections_alone_and_in_a_batch(backbone, norm, heads, neck):
    check(detector(backbone, norm=norm, heads=heads, neck=neck))


@pytest.mark.parametrize(
    ("backbone", "args"),
    [
        ("botnet14_nano", {"position": "absolute", "c4_blocks": [1]}),
        ("botnet_s1_14_tiny", {}),
        ("botnet14_nano", {"se": "all", "act_layer": nn.SiLU}),
        ("resnet14_nano", {"avg_down": True}),
        ("resnet14_nano", {"stem": "cifar"}),
    ],
    ids=["absolute+c4", "s1", "se+silu", "average shortcut", "cifar stem"],
)
def test_same_detections_with_other_layers(backbone, args):
    check(detector(backbone, heads="light", masks=False, backbone_args=args))


ALL = {"rpn_batch": 8192, "roi_batch": 8192}  # nothing is left to chance


def trained_on(model: Any, canvas_step: int, dtype: torch.dtype = torch.float32) -> tuple[dict, dict]:
    """Losses and gradients of a training batch on a canvas of multiples of so many pixels."""
    model.transform.size_divisible = canvas_step
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        losses = model(*scene())
    total(losses).backward()
    canvas = model.transform(*scene())[0].tensors.shape[-2:]
    assert canvas == ((96, 64) if canvas_step == 32 else (128, 128))
    return losses, {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("backbone", "norm", "heads", "tolerance"),
    [
        ("botnet14_nano", "group", "v2", 5e-3),  # group norm's gradients are small differences of large sums
        ("botnet14_nano", "group", "light", 5e-3),
        ("resnet14_nano", "frozen", "v2", 1e-3),
        ("resnet14_nano", "frozen", "light", 1e-4),
    ],
)
def test_losses_and_gradients_of_training_do_not_depend_on_the_canvas(backbone, norm, heads, tolerance):
    model = detector(backbone, norm=norm, heads=heads, **ALL)
    (losses, gradients), (wider, of_wider) = trained_on(model, 32), trained_on(model, 128)
    assert set(gradients) == set(of_wider)
    for name, loss in losses.items():
        assert loss > 0
        torch.testing.assert_close(wider[name], loss, rtol=1e-4, atol=1e-5, msg=name)
    for name, gradient in gradients.items():
        allowed = tolerance * gradient.abs().max().item() + 1e-6
        torch.testing.assert_close(of_wider[name], gradient, rtol=0, atol=allowed, msg=name)


def test_training_statistics_of_batch_norm_do_depend_on_it():
    """As the options say; and the test above would notice."""
    model = detector("resnet14_nano", norm="batch", **ALL)
    losses, wider = trained_on(model, 32)[0], trained_on(model, 128)[0]
    assert not torch.isclose(total(losses), total(wider), rtol=1e-3)


def test_a_padded_batch_in_half_precision():
    """bf16 has 8 bits: the losses are those of float32 to a few percent, on any canvas."""
    model = detector(norm="group", **ALL)
    exact = trained_on(model, 32)[0]
    for step in (32, 128):
        losses, gradients = trained_on(model, step, torch.bfloat16)
        assert all(gradient.isfinite().all() for gradient in gradients.values())
        torch.testing.assert_close(total(losses), total(exact), rtol=0.05, atol=0)


@pytest.mark.parametrize("options", [{}, {"se": "all"}], ids=["plain", "gates"])
def test_two_detectors_on_one_network_correct_its_padding_once(options: dict[str, Any]):
    """`mask_rcnn` takes a network as it is, so that it may be watched already."""
    torch.manual_seed(0)
    options = {"img_size": 96, "zero_init_last": False, **options}  # what a block computes shall count
    body = timm.create_model("botnet14_nano", features_only=True, **options).eval()
    first = bv.faster_rcnn(body, 2, heads="light").eval()
    x = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        before = first.backbone(x, sizes := [(64, 128), (96, 40)])  # an odd number of cells is pooled
        bv.faster_rcnn(body, 2, heads="light")
        after = first.backbone(x, sizes)
    for name, level in before.items():
        assert torch.equal(after[name], level)


def test_without_hooks_the_detections_differ():
    """The test above would notice."""
    model = detector(heads="light", masks=False)
    for module in [*model.backbone.modules(), *model.rpn.modules()]:
        module._forward_pre_hooks.clear()
    with pytest.raises(AssertionError):
        check(model)


def test_a_batch_leaves_nothing_behind():
    """What a part of the detector gives is the same before and after a padded batch, also one that failed."""
    model = detector(heads="light", masks=False).eval()
    x = torch.rand(2, 3, 96, 128, generator=torch.Generator().manual_seed(0))

    def parts() -> list[torch.Tensor]:
        with torch.no_grad():
            maps = list(model.backbone(x).values())
            logits, deltas = model.rpn.head(maps)
            return [*maps, *model.backbone.body(x), *logits, *deltas]

    def fails(*_args: object) -> None:
        raise RuntimeError("heads")

    before, batch = parts(), [image(40, 50), image(96, 128)]
    with torch.no_grad():
        model(batch)
    assert all(map(torch.equal, parts(), before))
    model.roi_heads.register_forward_pre_hook(fails)
    model.backbone.fpn.register_forward_hook(fails)
    with pytest.raises(RuntimeError, match="heads"):
        model(batch)
    model.backbone.fpn._forward_hooks.clear()
    assert all(map(torch.equal, parts(), before))


@torch.no_grad()
def test_the_backbone_takes_the_sizes():
    model = detector(heads="light", masks=False).eval()
    sizes = [(40, 50), (96, 128)]
    images = [image(*size) for size in sizes]
    x = torch.stack([nn.functional.pad(i, (0, 128 - i.shape[2], 0, 96 - i.shape[1])) for i in images])
    for level, of_batch in model.backbone(x, sizes).items():
        stride = model.backbone.strides[int(level) if level.isdigit() else -1]
        for index, (height, width) in enumerate(sizes):
            canvas = x[index : index + 1, :, : -(-height // 32) * 32, : -(-width // 32) * 32]
            alone = model.backbone(canvas, [(height, width)])[level][0]
            rows, columns = -(-height // stride), -(-width // stride)
            found = of_batch[index, :, :rows, :columns]
            torch.testing.assert_close(found, alone[:, :rows, :columns], rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_the_backbone_compiles_as_one_graph():
    torch.compiler.reset()
    model, x = detector(heads="light", masks=False).eval().backbone, torch.rand(2, 3, 64, 64)
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    for sizes in (None, [(64, 64), (40, 50)]):
        for found, expected in zip(compiled(x, sizes).values(), model(x, sizes).values(), strict=True):
            torch.testing.assert_close(found, expected)


def test_scaled_images_too():
    model = detector(heads="light", masks=False)
    model.transform.image_size = (96, 128)
    check(model)
