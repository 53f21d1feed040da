"""Masks at the size of the image: torchvision's pixels, in little memory."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torchvision.models.detection.roi_heads import RoIHeads, paste_masks_in_image, project_masks_on_boxes

from botvision.detection import masks as masks_room
from botvision.detection.masks import detect, paste, project
from botvision.detection.roi_heads import RegionHeads
from tests.detection.scenes import detector, image, scene, target, total


class Bytes(TorchDispatchMode):
    """Bytes of the largest tensor that any operation made."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        for tensor in out if isinstance(out, tuple | list) else (out,):
            if isinstance(tensor, torch.Tensor):
                self.largest = max(self.largest, tensor.nbytes)
        return out


def boxes_in(height: int, width: int, count: int) -> torch.Tensor:
    """Boxes of all sizes in an image, some along its border, some below a pixel."""
    ends = torch.rand(count, 2, 2).sort(1).values
    ends[::3, 1] = 1.0
    ends[1::3, 0] = 0.0
    ends[::7, 0] = ends[::7, 1] - 0.004
    return (ends * torch.tensor([width, height])).flatten(1)


@pytest.mark.parametrize("size", [(61, 90), (200, 33), (1, 5)])
def test_pasted_pixels_are_torchvisions(size):
    torch.manual_seed(0)
    masks, boxes = torch.rand(40, 1, 28, 28), boxes_in(size[0], size[1], 40)
    pasted = paste(masks, boxes, size)
    assert torch.equal(pasted, paste_masks_in_image(masks, boxes, size)[:, 0] > 0.5)
    assert pasted.any()
    assert paste(masks[:0], boxes[:0], size).shape == (0, *size)


@pytest.mark.parametrize("frame", [None, (64, 96)])
def test_detect_gives_what_the_model_gives(monkeypatch, frame):
    monkeypatch.setattr(masks_room, "PIXELS_AT_ONCE", 4 * 80 * 50)
    model = detector(image_size=frame).eval()
    images = [image(80, 50, 1), (255 * image(50, 97, 2)).byte()]
    chunks = []

    def encode(pixels: torch.Tensor) -> list[torch.Tensor]:
        chunks.append(len(pixels))
        return list(pixels)

    with torch.no_grad():
        expected, found = model(images), detect(model, images, encode)
    assert max(chunks) <= 4
    assert len(chunks) > 4
    for ours, theirs in zip(found, expected, strict=True):
        assert len(ours["masks"]) == len(theirs["scores"]) > 5
        assert torch.equal(torch.stack(ours["masks"]), theirs["masks"][:, 0] > 0.5)
        for key in ("boxes", "labels", "scores"):
            torch.testing.assert_close(ours[key], theirs[key], rtol=0, atol=0)


def test_detect_without_masks_and_without_detections():
    def never(_: torch.Tensor) -> list[None]:
        raise AssertionError

    with torch.no_grad():
        boxes_alone = detect(detector(masks=False).eval(), [image(64, 64)], never)[0]
        nothing = detect(detector(score_threshold=0.999).eval(), [image(64, 64)], never)[0]
    assert set(boxes_alone) == {"boxes", "labels", "scores"}
    assert nothing["masks"] == []
    assert nothing["boxes"].shape == (0, 4)


def test_a_large_photograph_takes_little_memory():
    """2400 x 1800 pixels with 30 objects: 518 MB if all masks were pasted as float32."""
    model = detector(heads="light", image_size=64).eval()
    with torch.no_grad(), Bytes() as memory:
        found = detect(
            model, [image(1800, 2400).mul(255).byte()], lambda pixels: pixels.sum((1, 2)).tolist()
        )[0]
    assert len(found["masks"]) == 30
    assert memory.largest <= 4 * 3 * 1800 * 2400  # the photograph itself as float32


def test_the_losses_are_torchvisions(monkeypatch):
    """With masks projected one at a time; an image without objects is in the batch."""
    monkeypatch.setattr(masks_room, "PIXELS_AT_ONCE", 1)
    images, targets = scene()
    images, targets = [*images, image(48, 48)], [*targets, target(48, 48, [])]
    found = []
    for forward in (RegionHeads.forward, RoIHeads.forward):
        monkeypatch.setattr(RegionHeads, "forward", forward)
        model = detector()
        torch.manual_seed(1)  # the sampling of anchors and proposals
        losses = model(images, targets)
        total(losses).backward()
        found.append((losses, {name: p.grad for name, p in model.named_parameters()}))
    assert found[0][0]["loss_mask"] > 0
    torch.testing.assert_close(found[0], found[1], rtol=0, atol=0)


def test_hundreds_of_instances_take_little_memory():
    """200 masks of 512 x 512, 210 MB as float32; some are not looked at."""
    torch.manual_seed(0)
    masks = torch.rand(200, 512, 512) > 0.5
    boxes, matched = boxes_in(512, 512, 60), torch.randint(0, 200, (60,))
    with Bytes() as memory:
        projected = project(masks, boxes, matched, 28)
    assert memory.largest <= 4 * masks_room.PIXELS_AT_ONCE
    assert torch.equal(projected, project_masks_on_boxes(masks, boxes, matched, 28))
    assert project(masks, boxes[:0], matched[:0], 28).shape == (0, 28, 28)


def test_targets_of_other_types_are_refused():
    images, targets = scene()
    targets[0]["labels"] = targets[0]["labels"].int()
    with pytest.raises(TypeError, match=r"labels torch.int32, expected"):
        detector()(images, targets)
