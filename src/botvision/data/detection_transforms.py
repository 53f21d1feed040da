"""Scale jitter, mirroring and cropping of an image together with its instances.

An image is scaled to fit a canvas times a random factor (proportions are kept), a window of at most the
canvas is cut out at a random place, and half of the windows are mirrored. Work is done at the size of the
result: a JPEG that shrinks much is decoded smaller, polygons are moved first and rasterised on the window,
run-length masks are picked from.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.v2 import functional as F

from botvision.coco.masks import Rle, decode, rle_boxes
from botvision.config.data import DetectionDataConfig

DRAWS = 7  # scale, top, left, mirror, brightness, contrast, saturation
# Resampled from a JPEG decoded this many times too large, pixels are less than one grey level off in mean.
SPARE = 1.5
_SHIFTS = (0, 8, 16)  # of a packed pixel: red is the lowest byte, read as little-endian wherever this runs
LARGEST_SCALED = 6  # times the window: beyond, torch's whole image costs more than Pillow's slower window


@dataclass(frozen=True)
class Window:
    """A window of a scaled, perhaps mirrored image.

    Attributes:
        source: (height, width) of the image.
        scaled: (height, width) to which it is scaled.
        top: first row of the window in the scaled image.
        left: first column.
        size: (height, width) of the window.
        mirrored: left to right, after cutting out.
    """

    source: tuple[int, int]
    scaled: tuple[int, int]
    top: int
    left: int
    size: tuple[int, int]
    mirrored: bool

    @property
    def scale(self) -> tuple[float, float]:
        """Factors (vertical, horizontal)."""
        return self.scaled[0] / self.source[0], self.scaled[1] / self.source[1]

    @property
    def reduction(self) -> int:
        """By how much a JPEG's sides may be divided while decoding: 1, 2, 4 or 8.

        What remains is at least `SPARE` times as large as it is to be scaled, so that hardly a pixel differs,
        and it covers exactly the image: sides that cannot be divided would be rounded, and objects shift.
        """
        sides = list(zip(self.source, self.scaled, strict=True))
        return next(
            factor
            for factor in (8, 4, 2, 1)
            if factor == 1 or all(side % factor == 0 and side >= SPARE * factor * to for side, to in sides)
        )

    def image(self, picture: Image.Image | Tensor) -> Tensor:
        """Return the window of a picture; bilinear, averaging where it shrinks.

        Args:
            picture: of mode "RGB", or uint8 (3, H, W); of the size of `source`, or decoded smaller.

        Returns:
            uint8 (3, h, w), contiguous.
        """
        (height, width), (rows, columns) = self.size, self.scaled
        if rows * columns > LARGEST_SCALED * height * width:
            return unpack(pack(self._resampled(picture)), self.mirrored)
        packed = pack(picture)
        if packed.shape[:2] != self.scaled:
            packed = F.resize(packed.permute(2, 0, 1), [rows, columns], antialias=True).permute(1, 2, 0)
        window = packed[self.top : self.top + height, self.left : self.left + width]
        return unpack(window, self.mirrored)

    def _resampled(self, picture: Image.Image | Tensor) -> Image.Image:
        """The window alone, for when the scaled image is so large that it had better not be made."""
        if not isinstance(picture, Image.Image):
            picture = Image.fromarray(picture.permute(1, 2, 0).numpy())
        (rows, columns), (height, width) = self.scaled, self.size
        down, right = rows / picture.height, columns / picture.width
        # Pillow reads beyond the box for its filter: exactly the window of the image scaled as a whole.
        box = (self.left / right, self.top / down, (self.left + width) / right, (self.top + height) / down)
        limited = (box[0], box[1], min(box[2], picture.width), min(box[3], picture.height))
        return picture.resize((width, height), Image.Resampling.BILINEAR, box=limited)

    def boxes(self, boxes: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Return boxes xyxy (N, 4) of the image as such of the window, cut off at its edges."""
        (down, right), (height, width) = self.scale, self.size
        moved = boxes * [right, down, right, down] - [self.left, self.top, self.left, self.top]
        if self.mirrored:
            moved[:, [0, 2]] = width - moved[:, [2, 0]]
        return moved.clip(0, [width, height, width, height])

    def polygon(self, points: npt.NDArray[np.floating]) -> list[float]:
        """Return x, y (P, 2) of the image as flat x1, y1, ... in the window; not cut off."""
        down, right = self.scale
        moved = points.astype(np.float64) * [right, down] - [self.left, self.top]
        if self.mirrored:
            moved[:, 0] = self.size[1] - moved[:, 0]
        return moved.reshape(-1).tolist()

    def pick(self, rles: Sequence[Rle], out: npt.NDArray[np.uint8], places: npt.NDArray[np.int64]) -> None:
        """Fill in masks: the pixel in whose area the centre of the new one lies.

        Only the new pixels around each mask are touched, which for hundreds of small ones is a hundredth.

        Args:
            rles: n masks of the image.
            out: uint8 (N, h, w), zeros.
            places: (n,), which of `out` they become.
        """
        height, width = self.size
        rows = _nearest(self.top, height, self.source[0], self.scaled[0])
        columns = _nearest(self.left, width, self.source[1], self.scaled[1])
        boxes = rle_boxes(rles)
        first_row, end_row = np.searchsorted(rows, boxes[:, 1]), np.searchsorted(rows, boxes[:, 3])
        first, end = np.searchsorted(columns, boxes[:, 0]), np.searchsorted(columns, boxes[:, 2])
        for k in np.flatnonzero((first_row < end_row) & (first < end)).tolist():
            mask = decode(rles[k : k + 1], self.source)[0]
            piece = mask[rows[first_row[k] : end_row[k], None], columns[first[k] : end[k]]]
            left, stop = first[k], end[k]
            if self.mirrored:
                piece, left, stop = piece[:, ::-1], width - end[k], width - first[k]
            out[places[k], first_row[k] : end_row[k], left:stop] = piece


def _nearest(first: int, count: int, source: int, scaled: int) -> npt.NDArray[np.int64]:
    """The pixel below the centre of each scaled one, in whole numbers: a centre on an edge is beyond it."""
    return (2 * (first + np.arange(count)) + 1) * source // (2 * scaled)


def choose_window(source: tuple[int, int], config: DetectionDataConfig, draws: Sequence[float]) -> Window:
    """Return the window that the configuration and random numbers choose.

    Args:
        source: (height, width) of the image.
        config: canvas and augmentation.
        draws: uniform numbers in [0, 1): scale, top, left, mirror.

    Returns:
        A window of at least 1 and at most `config.size` pixels a side.
    """
    canvas, factor = config.size, 1.0
    if config.augment == "jitter":
        low, high = config.scale_jitter
        factor = low + (high - low) * draws[0]
    fit = factor * min(canvas[0] / source[0], canvas[1] / source[1])
    scaled = max(1, round(source[0] * fit)), max(1, round(source[1] * fit))
    size = min(canvas[0], scaled[0]), min(canvas[1], scaled[1])
    top = int(draws[1] * (scaled[0] - size[0] + 1))
    left = int(draws[2] * (scaled[1] - size[1] + 1))
    return Window(source, scaled, top, left, size, config.mirrors and draws[3] < 0.5)


def jitter_colors(image: Tensor, strength: float, draws: Sequence[float]) -> Tensor:
    """Return an image uint8 (3, H, W) of another brightness, contrast and saturation, times 1 -+ strength."""
    if not strength:
        return image
    brightness, contrast, saturation = (1 + strength * (2 * draw - 1) for draw in draws)
    image = F.adjust_contrast(F.adjust_brightness(image, brightness), contrast)
    return F.adjust_saturation(image, saturation)


def pack(picture: Image.Image | Tensor) -> Tensor:
    """Return a picture, of mode "RGB" or uint8 (3, H, W), with 32 bits a pixel: uint8 (H, W, 4), new memory.

    Red, green, blue, and a byte without meaning is how Pillow holds pictures. Resampling with all channels of
    a pixel side by side is several times faster than plane by plane, and four bytes can be taken apart and
    turned as one number, three cannot.
    """
    if isinstance(picture, Image.Image):
        memory = bytearray(picture.tobytes("raw", "RGBX"))
        return torch.frombuffer(memory, dtype=torch.uint8).view(picture.height, picture.width, 4)
    planes = picture.numpy()
    words = planes[0].astype("<u4")
    for plane, shift in zip(planes[1:], _SHIFTS[1:], strict=True):
        words |= plane.astype("<u4") << np.uint32(shift)
    return torch.from_numpy(words.view(np.uint8)).view(*planes.shape[1:], 4)


def unpack(packed: Tensor, mirrored: bool = False) -> Tensor:
    """Return a packed picture, whose rows may lie apart, as uint8 (3, H, W), new memory, contiguous."""
    if mirrored:
        packed = packed.view(torch.int32).flip(1).view(torch.uint8)
    words = packed.numpy().view("<u4")[..., 0]
    planes = np.empty((3, *words.shape), dtype=np.uint8)
    for plane, shift in zip(planes, _SHIFTS, strict=True):
        np.right_shift(words, np.uint32(shift), out=plane, casting="unsafe")  # keeps the lowest byte
    return torch.from_numpy(planes)
