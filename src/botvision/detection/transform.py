"""Images as a network takes them: normalised, fitted into the frame in evaluation, together on one canvas."""

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.transform import GeneralizedRCNNTransform, resize_boxes

CANVAS_STEP = 32  # pixels of which a canvas is a multiple


class FitTransform(GeneralizedRCNNTransform):
    """torchvision's transform with a frame instead of two lengths of sides.

    Args:
        image_size: (height, width) that evaluation scales an image to fit into, up or down, keeping its
            aspect ratio; None leaves images as they are. Training never scales.
        mean: by channel, for values 0..1.
        std: by channel.
        num_classes: K; labels of targets are 1..K.
    """

    def __init__(
        self,
        image_size: tuple[int, int] | None,
        mean: tuple[float, ...],
        std: tuple[float, ...],
        num_classes: int,
    ) -> None:
        sides = image_size or (1, 1)
        super().__init__(min(sides), max(sides), list(mean), list(std), CANVAS_STEP)
        self.image_size = image_size
        self.num_classes = num_classes

    def forward(
        self, images: list[Tensor], targets: list[dict[str, Tensor]] | None = None
    ) -> tuple[ImageList, list[dict[str, Tensor]] | None]:
        """Put images (3, H, W) of 0..1 or uint8 on one canvas, and targets in its pixels.

        Raises:
            ValueError: no images, one of other channels, a box without height or width, a label out of range.
        """
        if len(images) == 0:
            raise ValueError("a detector needs at least one image, got none")
        for index, image in enumerate(images):
            if image.ndim != 3 or image.shape[0] != len(self.image_mean):
                expected = f"({len(self.image_mean)}, H, W)"
                raise ValueError(f"image {index} of the batch is {tuple(image.shape)}, expected {expected}")
        for index, target in enumerate(targets or ()):
            _refuse(index, target, self.num_classes)
        return super().forward(images, targets)

    def normalize(self, image: Tensor) -> Tensor:
        """Bring an image to zero mean and unit standard deviation; uint8 counts to 255."""
        return super().normalize(image if image.is_floating_point() else image.float() / 255)

    def resize(
        self, image: Tensor, target: dict[str, Tensor] | None = None
    ) -> tuple[Tensor, dict[str, Tensor] | None]:
        """Fit an image into the frame, with the boxes and masks of its target."""
        height, width = image.shape[-2:]
        size = (height, width) if self.training else self.fitted(height, width)
        if size == (height, width):
            return image, target
        image = F.interpolate(image[None], size, mode="bilinear", antialias=True)[0]
        if target is not None:
            target = target | {"boxes": resize_boxes(target["boxes"], [height, width], list(size))}
            if "masks" in target:
                target["masks"] = F.interpolate(target["masks"][:, None].float(), size)[:, 0].byte()
        return image, target

    def fitted(self, height: int, width: int) -> tuple[int, int]:
        """Return the (height, width) in pixels that evaluation gives an image of height x width."""
        if self.image_size is None:
            return height, width
        frame = self.image_size
        scale = min(frame[0] / height, frame[1] / width)
        return (
            min(frame[0], max(1, round(height * scale))),
            min(frame[1], max(1, round(width * scale))),
        )

    def __repr__(self) -> str:
        return f"FitTransform(image_size={self.image_size}, mean={self.image_mean}, std={self.image_std})"


def _refuse(index: int, target: dict[str, Tensor], num_classes: int) -> None:
    boxes = target.get("boxes")
    if not isinstance(boxes, Tensor) or boxes.ndim != 2 or boxes.shape[1] != 4:
        shape = tuple(boxes.shape) if isinstance(boxes, Tensor) else type(boxes).__name__
        raise ValueError(f"boxes of image {index} of the batch must be a (N, 4) tensor, got {shape}")
    labels = target.get("labels")
    if (
        isinstance(labels, Tensor)
        and labels.numel()
        and not 1 <= int(labels.min()) <= int(labels.max()) <= num_classes
    ):
        raise ValueError(
            f"image {index} of the batch: labels {int(labels.min())} to {int(labels.max())}, expected 1 to "
            f"{num_classes} (0 is the background; category ids with gaps are mapped to 1, 2, ... first)"
        )
    flat = ~(boxes[:, 2:] > boxes[:, :2]).all(1)  # written so that NaN counts as flat
    if flat.any():
        place = int(torch.nonzero(flat)[0])
        name = f" (image id {int(target['image_id'])})" if "image_id" in target else ""
        box = ", ".join(f"{value:g}" for value in boxes[place].tolist())
        raise ValueError(f"image {index} of the batch{name}: box {place} [{box}] has no height or no width")
