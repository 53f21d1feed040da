"""What a run says about its detection data: images with boxes and masks."""

from dataclasses import dataclass
from typing import Literal

from botvision.io.errors import DataError

DetectionSource = Literal["auto", "coco", "generated"]

MAX_SHAPE_CLASSES = 6


@dataclass(frozen=True)
class DetectionDataConfig:
    """Where images with instances come from and what training does to them.

    Attributes:
        source: "coco" (COCO JSON and folders of images), "generated" (drawn shapes, no files needed); "auto"
            is "coco" where `root` is set.
        root: folder that the following four are relative to.
        train_annotations: COCO JSON of the training images; None looks for annotations/instances_train*.json
            and other usual names. From a single JSON validation images are held back.
        train_images: folder of the training images; None looks beside the JSON for the usual names.
        val_annotations: COCO JSON of the validation images.
        val_images: folder of the validation images.
        val_fraction: part of the training images held back for validation where no validation JSON is. Which
            ones depends on the image ids, not on the run's seed.
        val_is_train: validate on the training images themselves: trials of over-fitting.
        limit: use only so many training images, those with annotations first, spread evenly over the file.
        limit_val: the same for validation; None for all.
        image_size: the canvas of training and the frame that evaluation fits images into (proportions are
            kept), in pixels: one number for a square or (height, width).
        augment: "none"; "flip" (mirrored left to right, half of them); "jitter" (also scaled by
            `scale_jitter` relative to the canvas, and a random part cut out of what is larger).
        flip: False: nothing is mirrored, whatever `augment` says; for classes that are the left and the right
            of the same thing, which a mirror turns into each other.
        scale_jitter: lowest and highest scale; the paper's are (0.8, 1.25), (0.5, 2.0) and (0.1, 2.0).
        color_jitter: brightness, contrast and saturation change by up to this part; 0 leaves colours alone.
        keep_empty: train on images without annotations too, as negatives.
        skip_broken: leave out what `check` names (and count it) instead of refusing the data; boxes that
            reach outside their image are clipped. Every image is read once beforehand. Evaluation then
            compares with annotations that are repaired in the same way, not with the file as it is.
        num_classes: generated data: number of shapes, 1..6.
        num_images: generated data: training images.
        num_val_images: generated data: validation images.
        max_objects: generated data: most shapes in one image.
        generated_seed: generated data: which data set is drawn; the run's seed does not change it.
        mean: by channel, for values 0..1 (ImageNet's by default); the network normalises.
        std: by channel, for values 0..1.
        cache: keep decoded images at their own size in memory: "auto" (if they fit into `cache_bytes`),
            "memory" (always) or "none". Images that are not kept, stored as JPEG, are decoded smaller where
            training shrinks them much, which moves some pixels by a grey level or so.
        cache_bytes: limit of "auto", for each split.
        num_workers: loader processes.
    """

    source: DetectionSource = "auto"
    root: str | None = None
    train_annotations: str | None = None
    train_images: str | None = None
    val_annotations: str | None = None
    val_images: str | None = None
    val_fraction: float = 0.15
    val_is_train: bool = False
    limit: int | None = None
    limit_val: int | None = None
    image_size: int | tuple[int, int] = 512
    augment: Literal["none", "flip", "jitter"] = "jitter"
    flip: bool = True
    scale_jitter: tuple[float, float] = (0.8, 1.25)
    color_jitter: float = 0.0
    keep_empty: bool = True
    skip_broken: bool = False
    num_classes: int = 3
    num_images: int = 1000
    num_val_images: int = 200
    max_objects: int = 6
    generated_seed: int = 0
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
        low, high = self.scale_jitter
        checks: list[tuple[bool, str, object, str]] = [
            (min(self.size) >= 1, "image_size", self.image_size, "at least 1 pixel a side"),
            (0 <= self.val_fraction < 1, "val_fraction", self.val_fraction, "at least 0 and below 1"),
            (self.limit is None or self.limit >= 1, "limit", self.limit, "at least 1"),
            (self.limit_val is None or self.limit_val >= 1, "limit_val", self.limit_val, "at least 1"),
            (0 < low <= high <= 10, "scale_jitter", self.scale_jitter, "0 < low <= high <= 10"),
            (0 <= self.color_jitter <= 1, "color_jitter", self.color_jitter, "0..1"),
            (
                1 <= self.num_classes <= MAX_SHAPE_CLASSES,
                "num_classes",
                self.num_classes,
                f"1..{MAX_SHAPE_CLASSES}",
            ),
            (self.num_images >= 1, "num_images", self.num_images, "at least 1"),
            (self.num_val_images >= 1, "num_val_images", self.num_val_images, "at least 1"),
            (self.max_objects >= 1, "max_objects", self.max_objects, "at least 1"),
            (min(self.std) > 0, "std", self.std, "above 0"),
            (self.cache_bytes >= 0, "cache_bytes", self.cache_bytes, "at least 0"),
            (self.num_workers >= 0, "num_workers", self.num_workers, "at least 0"),
        ]
        if self.source == "generated" and self.root is not None:
            raise DataError(
                f"data.root: {self.root} is not used, since data.source is generated (drawn images); "
                "expected a recipe for data of your own"
            )
        for fine, key, value, expected in checks:
            if not fine:
                raise DataError(f"data.{key}: {value} is impossible, expected {expected}")

    @property
    def mirrors(self) -> bool:
        """Whether training mirrors images."""
        return self.flip and self.augment != "none"

    @property
    def size(self) -> tuple[int, int]:
        """`image_size` as (height, width)."""
        if isinstance(self.image_size, int):
            return self.image_size, self.image_size
        height, width = self.image_size
        return height, width
