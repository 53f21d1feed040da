"""Where the cells of a feature map lie in the image that a network was shown; height before width."""

import math
from dataclasses import dataclass

from botvision.data.transforms import cut_of

Yx = tuple[float, float]
Hw = tuple[int, int]
Box = tuple[float, float, float, float]
"""Top, left, bottom, right edges in pixels of the image, whose first pixel lies from 0 to 1."""


@dataclass(frozen=True)
class View:
    """How an image lies in a network's input: input = image * scale - offset, in pixels, on both axes.

    The middle of cell (r, c) of a map with stride s is that of the input's pixel (s r, s c), where strided
    convolutions and pools that pad with half of their kernel put it. A cell stands for the pixels that are
    nearer to it than to others. (What it has seen is wider: its receptive field.)

    Attributes:
        size: (height, width) of the image.
        scale: input pixels for a pixel of the image, (y, x).
        offset: where the image's part that is seen begins, in input pixels, (y, x).
        seen: (height, width) of the input that the image fills, from the upper left; beyond is padding.
        canvas: (height, width) of the input.
    """

    size: Hw
    scale: Yx
    offset: Yx
    seen: Hw
    canvas: Hw

    @classmethod
    def whole(cls, size: Hw) -> "View":
        """Return the view of a network whose input is the image."""
        return cls(size, (1.0, 1.0), (0.0, 0.0), size, size)

    @classmethod
    def fitted(cls, size: Hw, seen: Hw, canvas: Hw) -> "View":
        """Return the view of an image scaled to `seen` in the upper left of a canvas: a detector's."""
        return cls(size, (seen[0] / size[0], seen[1] / size[1]), (0.0, 0.0), seen, canvas)

    @classmethod
    def cropped(cls, size: Hw, shown: Hw, crop: float = 1.0) -> "View":
        """Return the view of the middle of an image that `resize_and_crop` takes: a classifier's."""
        cut = cut_of(size, shown, crop)
        scale = (cut.scaled[0] / cut.kept[0], cut.scaled[1] / cut.kept[1])
        offset = (cut.first[0] * scale[0] + cut.second[0], cut.first[1] * scale[1] + cut.second[1])
        return cls(size, scale, offset, shown, shown)

    @property
    def middle(self) -> Hw:
        """Return row and column of the pixel in the middle of what is seen."""
        top, left, bottom, right = self.visible
        return int((top + bottom) / 2), int((left + right) / 2)

    @property
    def visible(self) -> Box:
        """Return the part of the image that the network sees."""
        return self._box((0.0, 0.0), self.seen)

    def stride(self, grid: Hw) -> int:
        """Return the stride of a map of `grid` cells: maps round up, so it is the one that fits."""
        for power in range(max(self.canvas).bit_length() + 1):
            if all(math.ceil(side / 2**power) == n for side, n in zip(self.canvas, grid, strict=True)):
                return 2**power
        raise ValueError(
            f"a map of {grid[0]}x{grid[1]} cells of an input of {self.canvas[0]}x{self.canvas[1]} pixels: "
            "expected half, a quarter, ... of it, rounded up"
        )

    def cells(self, stride: int) -> Hw:
        """Return (height, width) in cells of what belongs to the image."""
        return math.ceil(self.seen[0] / stride), math.ceil(self.seen[1] / stride)

    def cell(self, at: Hw, stride: int) -> Hw:
        """Return row and column of the cell that is nearest to the middle of a pixel of the image.

        Raises:
            ValueError: a pixel outside the image, or in a part that the network does not see.
        """
        text = f"at {at[0]},{at[1]}"
        if not all(0 <= place < side for place, side in zip(at, self.size, strict=True)):
            height, width = self.size
            raise ValueError(
                f"{text}: outside the image, whose y is 0 to {height - 1} and whose x is 0 to {width - 1}"
            )
        inside = [(p + 0.5) * s - o for p, s, o in zip(at, self.scale, self.offset, strict=True)]
        if not all(0 <= place < side for place, side in zip(inside, self.seen, strict=True)):
            top, left, bottom, right = (round(edge) for edge in self.visible)
            raise ValueError(
                f"{text}: not in the middle part of the image that the network sees, "
                f"y {top} to {bottom - 1} and x {left} to {right - 1}"
            )
        row, column = (
            min(int((place - 0.5) / stride + 0.5), count - 1)
            for place, count in zip(inside, self.cells(stride), strict=True)
        )
        return row, column

    def box(self, cell: Hw, stride: int) -> Box:
        """Return the part of the image that a cell stands for."""
        rows, columns = self.edges(stride)
        return rows[cell[0]], columns[cell[1]], rows[cell[0] + 1], columns[cell[1] + 1]

    def edges(self, stride: int) -> tuple[list[float], list[float]]:
        """Return where rows and columns of cells begin in the image, and where the last ones end."""
        found = []
        for count, side, o, s in zip(self.cells(stride), self.seen, self.offset, self.scale, strict=True):
            inner = [stride * (k - 0.5) + 0.5 for k in range(1, count)]
            found.append([(place + o) / s for place in (0.0, *inner, float(side))])
        return found[0], found[1]

    def _box(self, corner: Yx, end: Yx) -> Box:
        (top, left), (bottom, right) = (
            [(place + o) / s for place, o, s in zip(point, self.offset, self.scale, strict=True)]
            for point in (corner, end)
        )
        return top, left, bottom, right
