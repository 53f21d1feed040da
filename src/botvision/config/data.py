"""What a run says about its images: with a label each, or with boxes and masks."""

from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from botvision.config.schema import ConfigError, Count, Fraction, Positive, Probability, Rule, Section, Share

# Sources whose images are made on the fly, without files.
SYNTHETIC = ("generated", "pointing")

# By source, the quantity of every label by which accuracy is broken down.
QUANTITIES: dict[str, str] = {"pointing": "distance"}

MAX_PIXELS = 2**26  # of an image: 67 million, decoded 200 MB

MAX_CLASSES, MAX_SHAPES = 10, 6  # of the outlines, and of the shapes, that "generated" knows

# Distances from an arrow to its mark, in short sides: nearer ones would overlap, farther ones lie outside.
NEAREST, FARTHEST = 0.1, 0.875


def _are_edges(distances: tuple[float, ...]) -> bool:
    ascending = len(distances) > 1 and list(distances) == sorted(set(distances))
    return ascending and distances[0] >= NEAREST and distances[-1] <= FARTHEST


Edges = Annotated[
    tuple[float, ...], Rule(f"two or more ascending edges within {NEAREST}..{FARTHEST}", _are_edges)
]
LARGEST_SIDE = 8192  # pixels of a network's input: more would be a mistake, and fill any memory


def _is_size(size: int | tuple[int, int]) -> bool:
    return all(1 <= side <= LARGEST_SIDE for side in (size if isinstance(size, tuple) else (size,)))


Size = Annotated[int | tuple[int, int], Rule(f"1 to {LARGEST_SIDE} pixels a side", _is_size)]


@dataclass(frozen=True)
class ImageDataConfig(Section):
    """Keys that both tasks have.

    Attributes:
        source: where images come from; "auto" looks at `root`.
        root: the folder (or zip) of the data.
        image_size: network input in pixels, one number for a square or (height, width).
        val_fraction: fraction of the training images held back for validation if the data have no validation
            images. Which ones does not depend on the run's seed.
        limit: use at most this many training images.
        num_classes: synthetic data: number of classes.
        num_images: synthetic data: training images.
        num_val_images: synthetic data: validation images.
        generated_seed: synthetic data: which data set is drawn; the run's seed does not change it.
        mean: per channel, for values 0..1 (ImageNet's by default).
        std (tuple[float, float, float]): per channel, for values 0..1.
        cache: keep decoded images in memory: "auto" (if they fit into `cache_bytes`), "memory" (always) or
            "none".
        cache_bytes: limit of "auto", for each split.
        max_pixels: larger images are refused before they are decoded, since they could be made to fill the
            memory.
        num_workers: loader processes.
    """

    dotted: ClassVar[str] = "data"
    source: str = "auto"
    root: str | None = None
    image_size: Size = 224
    val_fraction: Fraction = 0.1
    limit: Positive | None = None
    num_classes: int = 8
    num_images: Positive = 8000
    num_val_images: Positive = 2000
    generated_seed: int = 0
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    std: Annotated[tuple[float, float, float], Rule("numbers above 0", lambda std: min(std) > 0)] = (
        *(0.229, 0.224, 0.225),
    )
    cache: Literal["auto", "memory", "none"] = "auto"
    cache_bytes: Count = 2 * 1024**3
    max_pixels: Positive = MAX_PIXELS
    num_workers: Count = 0

    root_holds: ClassVar[str] = "a folder or zip"

    @property
    def missing_root(self) -> str:
        """What is wrong where data are opened and `root` is not set; empty where it is, or need not be."""
        if self.root is not None or self.source in SYNTHETIC:
            return ""
        return (
            f"data.root is not set, expected {self.root_holds} (or data.source generated, which needs none)"
        )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.source in SYNTHETIC and self.root is not None:
            raise ConfigError(
                f"data.root: {self.root} is not used, since data.source is {self.source} (drawn images); "
                "expected a recipe for data of your own"
            )

    @property
    def size(self) -> tuple[int, int]:
        """`image_size` as (height, width)."""
        size = self.image_size
        return (size, size) if isinstance(size, int) else size


@dataclass(frozen=True)
class DataConfig(ImageDataConfig):
    """Where labelled images come from, and how they are augmented.

    Attributes:
        source: "auto" looks at `root` (a folder, a zip, a folder with an official CIFAR archive). "generated"
            draws ten outlines and needs no files; "pointing" draws arrows, each labelled with the kind of
            mark that it points to, near or far.
        root: the folder or zip: `train/<class>/...`, and `val/` or `test/` of the same form.
        val_fraction: taken from each class, by the file list.
        limit: of each split, spread evenly over the classes.
        num_classes (int): synthetic data: 2 to 10 classes (pointing has four).
        download: download CIFAR if it is missing.
        distances: pointing: ascending edges of distance intervals, as fractions of the image's short side,
            0.1 to 0.875; every interval has the same number of labels. Distances are 1 to 6 eighths, and
            every interval must contain one.
        augment: "none"; "flip_crop": mirrored, and shifted within a border of `padding` pixels (small
            images); "imagenet": random resized crop, mirrored.
        padding: border of flip_crop in pixels.
        pad_mode: what fills the border, "zeros" (black) or "reflect".
        crop_scale (tuple[float, float]): imagenet: smallest and largest area of the crop, as fractions.
        eval_crop: imagenet: fraction of each side that evaluation keeps after scaling.
        randaugment (int): RandAugment's magnitude, 1 to 30, two operations per image; 0 turns it off.
        random_erase: probability of erasing a random rectangle.
        num_workers: 0 is fastest for cached flip_crop: a GPU then makes the batches itself.
    """

    source: Literal["auto", "folder", "zip", "cifar10", "cifar100", "generated", "pointing"] = "auto"
    num_classes: Annotated[int, Rule(f"2..{MAX_CLASSES}", lambda n: 2 <= n <= MAX_CLASSES)] = 8
    download: bool = False
    distances: Edges = (0.125, 0.25, 0.375, 0.5, 0.625, 0.75, 0.875)
    augment: Literal["none", "flip_crop", "imagenet"] = "none"
    padding: Count = 4
    pad_mode: Literal["zeros", "reflect"] = "zeros"
    crop_scale: Annotated[
        tuple[float, float], Rule("0 < low <= high <= 1", lambda scale: 0 < scale[0] <= scale[1] <= 1)
    ] = (0.08, 1.0)
    eval_crop: Share = 0.875
    randaugment: Annotated[int, Rule("a magnitude 0..30", lambda n: 0 <= n <= 30)] = 0
    random_erase: Probability = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.augment == "flip_crop" and self.pad_mode == "reflect" and self.padding >= min(self.size):
            raise ConfigError(
                f"data.padding: expected less than the image's side ({min(self.size)} pixels) when it is "
                f"reflected, got {self.padding}"
            )
        if self.source != "pointing":
            return
        if self.augment != "none" or not self.whole_batches:
            raise ConfigError(
                "data.augment: the places and directions of data.source pointing would be wrong in changed "
                "pictures, expected none, data.randaugment 0 and data.random_erase 0"
            )
        for low, high in zip(self.distances[:-1], self.distances[1:], strict=True):
            if not any(low <= step / 8 < high for step in range(1, 7)):
                raise ConfigError(
                    f"data.distances: {low:g} to {high:g} holds no distance of pointing, expected one of "
                    "1 to 6 eighths in every interval"
                )

    @property
    def crop_of_eval(self) -> float:
        """Part of each side that evaluation keeps: only the ImageNet way trains on crops."""
        return self.eval_crop if self.augment == "imagenet" else 1.0

    @property
    def whole_batches(self) -> bool:
        """Whether training images need only a fixed resize and what can be done to whole batches at once."""
        return self.augment in ("none", "flip_crop") and not self.randaugment and not self.random_erase


@dataclass(frozen=True)
class DetectionDataConfig(ImageDataConfig):
    """Where images with objects come from, and how they are augmented.

    Attributes:
        source: "coco" (COCO JSON and folders of images), "generated" (drawn shapes, no files needed); "auto"
            is "coco" where `root` is set.
        root: folder that the next four paths are relative to.
        train_annotations: COCO JSON of the training images; None looks for annotations/instances_train*.json
            and other usual names. Of a single JSON, validation images are held back.
        train_images: folder of the training images; None looks beside the JSON for the usual names.
        val_annotations: COCO JSON of the validation images.
        val_images: folder of the validation images.
        val_fraction: taken by image id; images that are the same, or nearly so, stay together.
        val_is_train: validate on the training images themselves, to try overfitting.
        limit: those with annotations first, spread evenly over the file.
        limit_val: the same for validation; null for all.
        image_size: the canvas in training, and the frame that evaluation fits images into, keeping their
            proportions.
        augment: "none"; "flip" (half of the images are mirrored left to right); "jitter" (also scaled by
            `scale_jitter` relative to the canvas, with a random crop of images that are then larger).
        flip: false: nothing is mirrored, whatever `augment` says. For classes that are the left and the right
            of the same thing, which mirroring swaps.
        scale_jitter (tuple[float, float]): lowest and highest scale, up to 10; the paper's are (0.8, 1.25),
            (0.5, 2.0) and (0.1, 2.0).
        color_jitter: change brightness, contrast and saturation by up to this fraction; 0 leaves colours
            alone.
        keep_empty: also train on images without annotations, as negatives.
        skip_broken: leave out (and count) what `check` names instead of refusing the data; boxes that reach
            outside their image are clipped. Every image is read once beforehand. Evaluation then compares
            with annotations repaired in the same way, not with the file as it is.
        num_classes (int): synthetic data: number of shapes, 1 to 6.
        max_objects: synthetic data: most shapes in one image.
        cache: images are cached at their own size. JPEGs that are not cached are decoded at a smaller size
            where training shrinks them a lot, which moves some pixels by about one grey level.
    """

    root_holds: ClassVar[str] = "a folder with COCO annotations"

    source: Literal["auto", "coco", "generated"] = "auto"
    val_fraction: Fraction = 0.15
    image_size: Size = 512
    num_classes: Annotated[int, Rule(f"1..{MAX_SHAPES}", lambda n: 1 <= n <= MAX_SHAPES)] = 3
    num_images: Positive = 1000
    num_val_images: Positive = 200
    train_annotations: str | None = None
    train_images: str | None = None
    val_annotations: str | None = None
    val_images: str | None = None
    val_is_train: bool = False
    limit_val: Positive | None = None
    augment: Literal["none", "flip", "jitter"] = "jitter"
    flip: bool = True
    scale_jitter: Annotated[
        tuple[float, float], Rule("0 < low <= high <= 10", lambda scale: 0 < scale[0] <= scale[1] <= 10)
    ] = (0.8, 1.25)
    color_jitter: Probability = 0.0
    keep_empty: bool = True
    skip_broken: bool = False
    max_objects: Positive = 6

    @property
    def mirrors(self) -> bool:
        """Whether training mirrors images."""
        return self.flip and self.augment != "none"
