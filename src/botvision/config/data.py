"""What a run says about its data."""

from dataclasses import dataclass
from typing import Literal

from botvision.io.errors import DataError

Source = Literal["auto", "folder", "zip", "cifar10", "cifar100", "generated", "long_range", "pointing"]
DRAWN = ("generated", "long_range", "pointing")

# Sources with several labels in an image, each at a place of its own.
DENSE = ("pointing",)

# By source, the quantity of every label by which accuracy is broken down.
QUANTITIES: dict[str, str] = {"long_range": "distance", "pointing": "distance"}

MAX_GENERATED_CLASSES = 10

# Distances of two glyphs, in short sides: nearer ones would overlap, farther ones lie outside the picture.
NEAREST, FARTHEST = 0.1, 0.875


@dataclass(frozen=True)
class DataConfig:
    """Where labelled images come from and what is done with them before a network sees them.

    Attributes:
        source: where images come from; "auto" looks at what `root` is (a folder, a zip, a folder holding an
            official CIFAR archive). "generated" draws them and needs no files: ten outlines; so does
            "long_range": two small glyphs, of the same kind or not, near each other or far apart; and
            "pointing": arrows, each labelled with the kind of the mark it points to, near or far.
        root: the folder or zip: `train/<class>/...` and `val/` or `test/` of the same form.
        image_size: network input in pixels, one number for a square or (height, width).
        val_fraction: part of the training images held back for validation, class by class; used only where
            the data have no `val` or `test` split. The choice depends on the file list, not on the seed.
        download: fetch CIFAR where it is missing.
        limit: use at most so many images of each split, spread evenly over the classes.
        num_classes: generated data: number of classes, 2..10 (long_range has two, pointing four).
        num_images: drawn data: training images.
        num_val_images: drawn data: validation images.
        generated_seed: drawn data: which data set is drawn; the run's seed does not change it.
        distances: long_range, pointing: ascending edges of the intervals of distance, in short sides of the
            picture, 0.1..0.875; each interval has as many labels. Those of pointing are 1 to 6 eighths, and
            every interval has to hold one.
        augment: "none"; "flip_crop": mirrored, and shifted within a border of `padding` pixels (small
            images); "imagenet": random resized crop, mirrored.
        padding: border of flip_crop in pixels.
        pad_mode: the border's content, "zeros" (black) or "reflect".
        crop_scale: imagenet: range of the crop's part of the area.
        eval_crop: imagenet: part of each side that evaluation keeps after scaling.
        randaugment: RandAugment's magnitude, 1..30, two operations an image; 0 switches it off.
        random_erase: probability of erasing a random rectangle.
        mean: by channel, for values 0..1 (ImageNet's by default).
        std: by channel, for values 0..1.
        cache: keep decoded images in memory: "auto" (if they fit into `cache_bytes`), "memory" (always) or
            "none".
        cache_bytes: limit of "auto", for each split.
        num_workers: loader processes; 0 is fastest for cached flip_crop: a GPU then makes the batches itself.
    """

    source: Source = "auto"
    root: str | None = None
    image_size: int | tuple[int, int] = 224
    val_fraction: float = 0.1
    download: bool = False
    limit: int | None = None
    num_classes: int = 8
    num_images: int = 8000
    num_val_images: int = 2000
    generated_seed: int = 0
    distances: tuple[float, ...] = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
    augment: Literal["none", "flip_crop", "imagenet"] = "none"
    padding: int = 4
    pad_mode: Literal["zeros", "reflect"] = "zeros"
    crop_scale: tuple[float, float] = (0.08, 1.0)
    eval_crop: float = 0.875
    randaugment: int = 0
    random_erase: float = 0.0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    cache: Literal["auto", "memory", "none"] = "auto"
    cache_bytes: int = 2 * 1024**3
    num_workers: int = 0

    def __post_init__(self) -> None:
        """Refuse impossible values.

        Raises:
            DataError: one line with the key and the value.
        """
        height, width = self.size
        checks: list[tuple[bool, str, object, str]] = [
            (min(height, width) >= 1, "image_size", self.image_size, "at least 1 pixel a side"),
            (0 <= self.val_fraction < 1, "val_fraction", self.val_fraction, "at least 0 and below 1"),
            (self.limit is None or self.limit >= 1, "limit", self.limit, "at least 1"),
            (2 <= self.num_classes <= MAX_GENERATED_CLASSES, "num_classes", self.num_classes, "2..10"),
            (self.num_images >= 1, "num_images", self.num_images, "at least 1"),
            (self.num_val_images >= 1, "num_val_images", self.num_val_images, "at least 1"),
            (
                _are_edges(self.distances),
                "distances",
                list(self.distances),
                f"two or more ascending edges within {NEAREST}..{FARTHEST}",
            ),
            (self.padding >= 0, "padding", self.padding, "at least 0 pixels"),
            (
                0 < self.crop_scale[0] <= self.crop_scale[1] <= 1,
                "crop_scale",
                self.crop_scale,
                "0 < low <= high <= 1",
            ),
            (0 < self.eval_crop <= 1, "eval_crop", self.eval_crop, "above 0 and at most 1"),
            (0 <= self.randaugment <= 30, "randaugment", self.randaugment, "a magnitude 0..30"),
            (0 <= self.random_erase <= 1, "random_erase", self.random_erase, "a probability 0..1"),
            (min(self.std) > 0, "std", self.std, "above 0"),
            (self.num_workers >= 0, "num_workers", self.num_workers, "at least 0"),
            (
                self.augment != "flip_crop" or self.pad_mode == "zeros" or self.padding < min(height, width),
                "padding",
                self.padding,
                f"less than the image's side ({min(height, width)} pixels) when it is reflected",
            ),
        ]
        if self.source in DRAWN and self.root is not None:
            raise DataError(
                f"data.root: {self.root} is not used, since data.source is {self.source} (drawn images); "
                "expected a recipe for data of your own"
            )
        if self.source == "pointing" and not (self.augment == "none" and self.whole_batches):
            raise DataError(
                "data.augment: the places and directions of data.source pointing would be wrong in changed "
                "pictures, expected none, data.randaugment 0 and data.random_erase 0"
            )
        for fine, key, value, expected in checks:
            if not fine:
                raise DataError(f"data.{key}: {value} is impossible, expected {expected}")
        pairs = zip(self.distances[:-1], self.distances[1:], strict=True)
        for low, high in pairs if self.source == "pointing" else ():
            if not any(low <= step / 8 < high for step in range(1, 7)):
                raise DataError(
                    f"data.distances: {low:g} to {high:g} holds no distance of pointing, expected one of "
                    "1 to 6 eighths in every interval"
                )

    @property
    def size(self) -> tuple[int, int]:
        """`image_size` as (height, width)."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        height, width = self.image_size
        return height, width

    @property
    def crop_of_eval(self) -> float:
        """Part of each side that evaluation keeps: only the ImageNet way trains on crops."""
        return self.eval_crop if self.augment == "imagenet" else 1.0

    @property
    def whole_batches(self) -> bool:
        """Whether training images need only a fixed resize and what can be done to whole batches at once."""
        return self.augment in ("none", "flip_crop") and not self.randaugment and not self.random_erase


def _are_edges(distances: tuple[float, ...]) -> bool:
    ascending = len(distances) > 1 and list(distances) == sorted(set(distances))
    return ascending and distances[0] >= NEAREST and distances[-1] <= FARTHEST
