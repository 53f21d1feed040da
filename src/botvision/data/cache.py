"""Decoded images in one piece of memory."""

from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch
from torch import Tensor

Progress = Callable[[str, int, int], None]
"""Called with what is being done, how many are done, and how many there are."""

T = TypeVar("T")


def reported(items: Sequence[T], label: str, progress: Progress | None) -> Iterator[T]:
    """Yield items, and report after each how many are done."""
    for done, item in enumerate(items, 1):
        yield item
        if progress is not None:
            progress(label, done, len(items))


class ImageCache:
    """Images uint8 (3, H, W) of any sizes, end to end in one buffer that forked and spawned workers share."""

    def __init__(self, flat: Tensor, starts: Tensor, shapes: Tensor) -> None:
        """Take the buffer uint8, where each image begins (N), and heights and widths (N, 2)."""
        self.flat, self.starts, self.shapes = flat, starts, shapes
        height, width = shapes[0].tolist()
        uniform = bool((shapes == shapes[0]).all())
        self.stack = flat.view(-1, 3, height, width) if uniform else None

    def __getitem__(self, index: int) -> Tensor:
        """Return uint8 (3, H, W), a view."""
        start, (height, width) = int(self.starts[index]), self.shapes[index].tolist()
        return self.flat[start : start + 3 * height * width].view(3, height, width)

    @property
    def nbytes(self) -> int:
        """Size of the buffer in bytes."""
        return self.flat.numel()


def fill_cache(
    load: Callable[[int], Tensor], count: int, limit: int | None, label: str, progress: Progress | None = None
) -> ImageCache | None:
    """Decode all images, if they fit.

    The size is estimated from up to 32 images spread over the data, so that data that are far too large cost
    nothing; the limit itself is then kept exactly.

    Args:
        load: image i as uint8 (3, H, W).
        count: number of images, at least 1.
        limit: in bytes; None for no limit.
        label: what progress is reported as.
        progress: called after every image.

    Returns:
        The cache, or None if the images are larger than the limit.
    """
    sample = range(0, count, max(1, count // 32))
    expected = sum(load(index).numel() for index in sample) * count // len(sample)
    if limit is not None and expected > limit * 1.1:
        return None
    flat = torch.empty(expected if limit is None else min(expected, limit), dtype=torch.uint8)
    starts = torch.zeros(count, dtype=torch.int64)
    shapes = torch.zeros(count, 2, dtype=torch.int64)
    used = 0
    for index in reported(range(count), label, progress):
        image = load(index)
        end = used + image.numel()
        if limit is not None and end > limit:
            return None
        if end > flat.numel():
            room = max(end, flat.numel() * 5 // 4)
            grown = torch.empty(room if limit is None else min(room, limit), dtype=torch.uint8)
            grown[:used] = flat[:used]
            flat = grown
        flat[used:end] = image.reshape(-1)
        starts[index], used = used, end
        shapes[index] = torch.tensor(image.shape[-2:])
    return ImageCache(flat[:used], starts, shapes)
