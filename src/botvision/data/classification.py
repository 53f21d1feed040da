"""Labelled images: a configuration to data sets for training and validation."""

import dataclasses
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import Tensor

from botvision.config.data import SYNTHETIC, DataConfig
from botvision.data.cache import Progress, fill_cache, reported
from botvision.data.coco_folder import BESIDE_IMAGES, deeper, is_detection_data
from botvision.data.counter_rng import keys, uniform
from botvision.data.duplicates import (
    SMALLER,
    Groups,
    same_pictures,
    seen_together,
    shared_with_train,
    sides_of,
)
from botvision.data.images import decode
from botvision.data.labels import (
    Labelled,
    Subset,
    has_classes,
    hold_back,
    in_order_of,
    labelled,
    notes_on_folders,
    some_classes,
    split_folders,
    spread,
)
from botvision.data.loaders import VERIFIED, BatchedDataset
from botvision.data.other_labels import convert_hint
from botvision.data.sources import (
    FileSource,
    Listing,
    ZipSource,
    cifar_folder,
    list_folder,
    list_zip,
    open_cifar,
)
from botvision.data.split_names import HELD_NAMES, TEST_NAMES
from botvision.data.synthetic import open_synthetic
from botvision.data.transforms import (
    PlacedImages,
    borrowed_generator,
    build_transforms,
    fits,
    flip_crop,
    moves_of,
    normalise,
    resize_and_crop,
)
from botvision.io.errors import DataError

Key = int | tuple[int, int]
Batch = tuple[Tensor, Tensor, Tensor]


class ClassificationDataset(BatchedDataset):
    """Images and their classes, as network input.

    Items are asked for by index, or by (epoch, index); augmentation depends on (seed, epoch, index) alone,
    and the global random state stays as it was.

    Attributes:
        classes: names (K).
        targets: int64 (N), class of every image; (N, G) where images have G labels at places of their own.
        points: float64 (N, G, 2), y and x of these places in pixels of `load`; None for other data.
        grouping: a quantity of every image by which accuracy is broken down, if there is one.
    """

    def __init__(
        self, part: Labelled, config: DataConfig, *, train: bool, seed: int = 0, name: str = "images"
    ) -> None:
        """Take the parts; `open_splits` has them.

        Args:
            part: N images, their classes and names of those.
            config: size, augmentation, normalisation, cache.
            train: augment.
            seed: of the augmentation.
            name: for messages.
        """
        self.part, self.name = part, name
        self.source, self.targets, self.classes = part.source, part.targets, part.classes
        self.grouping = part.grouping
        self.points = part.points
        self.notes, self.skipped = list(part.notes), []  # nothing is passed over
        self.config, self.train, self.seed = config, train, seed
        self._transform = build_transforms(config, train)
        self._fixed_size = not train or config.whole_batches
        self._cached = False
        self._on_device: PlacedImages | None = None

    def __len__(self) -> int:
        return len(self.targets)

    def name_of(self, index: int) -> str:
        """Return the file an image comes from, or what stands for it."""
        return self.source.name_of(index)

    def load(self, index: int) -> Tensor:
        """Return the picture as stored, uint8 (3, H, W)."""
        return self.source.load(index)

    def point_of(self, index: int) -> tuple[int, int] | None:
        """Return (y, x) of a pixel of `load` at which a label is asked for; None if that is done nowhere."""
        if self.points is None:
            return None
        y, x = self.points[index, 0].tolist()
        return int(y), int(x)

    def cache_images(self, progress: Progress | None = None) -> None:
        if self._cached or self.config.cache == "none":
            return
        limit = self.config.cache_bytes if self.config.cache == "auto" else None
        self.cache = fill_cache(self._decoded, len(self), limit, f"reading {self.name}", progress)
        self._cached = True
        if self.cache is not None:
            self._note_choices()

    def place(self, device: torch.device) -> None:
        """Make the same batches on a device from now on, if its memory has room for all images.

        Nothing changes where images are not cached, are augmented one by one, or come from loader processes.
        """
        self.cache_images()
        stack = None if self.cache is None else self.cache.stack
        if self.placed or stack is None or not self._fixed_size or self.config.num_workers:
            return
        if fits(stack, device):
            self._on_device = PlacedImages(stack, self.targets, self.config, device)
            self.placed = True

    def verify(self, progress: Progress | None = None, at_most: int = VERIFIED) -> bool:
        if self.cache is not None or self.config.source in SYNTHETIC:
            return True
        if len(self) > at_most:
            return False
        for index in reported(range(len(self)), f"reading {self.name}", progress):
            self.source.load(index)
        self._note_choices()
        return True

    def _note_choices(self) -> None:
        """Add a line for each kind of choice that was made in reading the images."""
        source = self.source
        while isinstance(source, Subset):
            source = source.source
        if isinstance(source, FileSource | ZipSource):
            self.notes += source.choices.told()

    def picture(self, index: int) -> Tensor:
        """Return the picture at network size, before augmentation and normalisation, uint8 (3, H, W)."""
        return self._resized(self._pixels(index))

    def __getitem__(self, index: Key) -> tuple[Tensor, int | list[int], int]:
        images, targets, indices = self.__getitems__([index])
        return images[0], targets[0].tolist(), int(indices[0])

    def __getitems__(self, wanted: Sequence[Key]) -> Batch:
        """Return a whole batch.

        Args:
            wanted: B indices, or pairs (epoch, index).

        Returns:
            images float32 (B, 3, H, W), targets int64 (B,) or (B, G), indices int64 (B,).
        """
        pairs = np.array([(0, key) if isinstance(key, int) else key for key in wanted], dtype=np.int64)
        epochs, indices = pairs[:, 0], torch.from_numpy(pairs[:, 1].copy())
        if self._on_device is not None:
            return self._on_device.batch(indices, self._moves(epochs, indices))
        make = self._whole_batch if self._fixed_size else self._one_by_one
        return make(epochs, indices), self.targets[indices], indices

    def _decoded(self, index: int) -> Tensor:
        """What the cache holds: pictures of network size where the resize is fixed, else as stored."""
        image = self.source.load(index)
        return self._resized(image) if self._fixed_size else image

    def _resized(self, image: Tensor) -> Tensor:
        return resize_and_crop(image, self.config.size, 1.0 if self.train else self.config.crop_of_eval)

    def _pixels(self, index: int) -> Tensor:
        return self._decoded(index) if self.cache is None else self.cache[index]

    def _whole_batch(self, epochs: np.ndarray, indices: Tensor) -> Tensor:
        config = self.config
        if self.cache is not None and self.cache.stack is not None:
            images = torch.from_numpy(self.cache.stack.numpy()[indices.numpy()])  # torch: 50 times slower
        else:
            images = torch.stack([self._pixels(index) for index in indices.tolist()])
        moves = self._moves(epochs, indices)
        if moves is not None:
            images = flip_crop(images, moves, config.padding, config.pad_mode)
        return normalise(images, config.mean, config.std)

    def _moves(self, epochs: np.ndarray, indices: Tensor) -> npt.NDArray[np.int64] | None:
        """(B, 3) for `flip_crop`; None where images are not augmented that way."""
        if not self.train or self.config.augment != "flip_crop":
            return None
        return moves_of(uniform(3, self.seed, epochs, indices.numpy()), self.config.padding)

    def _one_by_one(self, epochs: np.ndarray, indices: Tensor) -> Tensor:
        seeds = keys(self.seed, epochs, indices.numpy()) >> np.uint64(1)  # torch's seeds are signed
        with borrowed_generator() as generator:
            images = []
            for seed, index in zip(seeds.tolist(), indices.tolist(), strict=True):
                generator.manual_seed(seed)
                images.append(self._transform(self._pixels(index)))
        return torch.stack(images)


@dataclass(frozen=True)
class Splits:
    """A data set opened for training.

    Attributes:
        train: augmented.
        val: the `val` or `test` split, or what was held back from training.
        classes: names (K), in the order of the targets.
        name: of the data set, for tables.
        held_back: whether `val` was split off from the training images.
        notes: lines on the data set as a whole, which are among those of `train` too.
    """

    train: ClassificationDataset
    val: ClassificationDataset
    classes: list[str]
    name: str
    held_back: bool = False
    notes: list[str] = field(default_factory=list)

    def shared(self, progress: Progress | None = None) -> list[str]:
        """Return lines on images of a val folder that train has, too, or nearly.

        Files are read for that, so there are none for more than `verify` reads.
        """
        parts, count = (self.train.part, self.val.part), len(self.train) + len(self.val)
        if self.held_back or count > VERIFIED or any(_files_of(part) is None for part in parts):
            return []
        names = [split.name_of(index) for split in (self.train, self.val) for index in range(len(split))]
        return shared_with_train(names, len(self.train), _groups(parts, f"comparing {self.name}", progress))


def open_splits(config: DataConfig, seed: int = 0) -> Splits:
    """Open the configured data; decodes nothing yet.

    Args:
        config: source and treatment.
        seed: of the augmentation; the same images are in the same split whatever it is.

    Raises:
        DataError: one line naming what is missing or wrong: no files, no classes, an empty class of training,
            a class of validation that training lacks, no validation images.
    """
    kind, notes = resolve_source(config), []
    if kind in SYNTHETIC:
        name, parts = open_synthetic(config)
    elif kind in ("cifar10", "cifar100"):
        root = Path(str(config.root))
        parts = {
            split: Labelled(*open_cifar(root, kind, split == "train", config.download))
            for split in ("train", "val")
        }
        name = "CIFAR-10" if kind == "cifar10" else "CIFAR-100"
    else:
        root, listing = listed(config, kind)
        name, folders = root.name or str(root), split_folders(listing)
        parts = {"train": labelled(listing, folders["train"])}
        if "val" in folders:
            parts["val"] = labelled(listing, folders["val"], parts["train"].classes)
        notes = [*listing.left_out.notes(), *notes_on_folders(listing)]
        if not folders["train"]:
            notes.append(f"no train/ folder: {some_classes(parts['train'].classes)} found at the root")
    held_back = "val" not in parts
    if held_back:
        groups, said = _sides(parts["train"], name) if kind in ("folder", "zip") else (None, [])
        parts = hold_back(parts["train"], config.val_fraction, name, groups)
        parts["val"] = dataclasses.replace(parts["val"], notes=[])
        held = set(parts["val"].targets.flatten().tolist())
        none = [name for k, name in enumerate(parts["train"].classes) if k not in held]
        notes += said
        if none and groups is not None:
            notes.append(f"nothing of {some_classes(none)} is held back, so their accuracy is not measured")
        notes.append(f"no val/ or test/ folder: {config.val_fraction:.0%} of train will be held back")
    train = _dataset(parts["train"], config, f"{name} train", train=True, seed=seed)
    val = _dataset(parts["val"], config, f"{name} val")
    train.notes[:0] = notes
    return Splits(train, val, list(train.classes), name, held_back, notes)


def open_split(config: DataConfig, split: str, classes: list[str], seed: int = 0) -> ClassificationDataset:
    """Open one split to evaluate a trained network on; a folder or zip need not hold any other.

    Args:
        config: source and treatment.
        split: "train" (not augmented), "val" (what `open_splits` validates on) or "test".
        classes: of the network (K), in the order of its logits.
        seed: as for `open_splits`.

    Raises:
        DataError: one line naming what is missing or wrong: no such split, classes that the network does
            not know.
    """
    kind = resolve_source(config)
    if kind in ("folder", "zip") and split != "train":
        root, listing = listed(config, kind)
        names = TEST_NAMES if split == "test" else HELD_NAMES
        folder = next((listing.splits[name] for name in names if name in listing.splits), None)
        if folder is not None:
            part = labelled(listing, folder, classes)
            dataset = _dataset(part, config, f"{root.name or root} {folder}")
            dataset.notes[:0] = listing.left_out.notes()
            return dataset
        if split == "test":
            raise DataError(f"{root}: no test/ folder, expected test/<class>/<image>")
    elif split == "test" and kind in SYNTHETIC:
        raise DataError(f"{kind} data have no test split, expected val or train")
    splits = open_splits(config, seed)
    chosen = splits.train if split == "train" else splits.val
    if kind not in ("folder", "zip") and splits.classes != classes:
        own = some_classes(splits.classes)
        raise DataError(f"{splits.name}: {own}, but the run has {some_classes(classes)}")
    part = in_order_of(chosen.part, classes, splits.name)
    dataset = ClassificationDataset(part, config, train=False, name=chosen.name)
    if splits.held_back or split == "train":
        dataset.notes[:0] = splits.train.notes if split == "val" else splits.notes
    if splits.held_back and split == "val":
        line = f"measured on the {len(splits.val)} images that are held back; "
        dataset.notes.append(f"{line}of a folder val/ around those of the classes all are measured on")
    return dataset


def _sides(train: Labelled, name: str) -> tuple[npt.NDArray[np.int64], list[str]]:
    """Groups of pictures that must not lie on both sides, and lines that say so."""
    return sides_of(name, _groups([train], f"comparing {name}"))


def _files_of(part: Labelled) -> tuple[FileSource | ZipSource, list[int]] | None:
    """The files of a part and its places in them; None where its images are no files."""
    source, places = part.source, torch.arange(len(part.source))
    while isinstance(source, Subset):
        source, places = source.source, source.indices[places]
    return (source, places.tolist()) if isinstance(source, FileSource | ZipSource) else None


def _groups(parts: Sequence[Labelled], label: str, progress: Progress | None = None) -> Groups:
    """All pictures of some parts, those that are the same or nearly together."""
    files = [(source, place) for source, places in filter(None, map(_files_of, parts)) for place in places]

    def read(place: int) -> Image.Image:
        source, index = files[place]
        if progress is not None:
            progress(label, place + 1, len(files))
        with source.stream(index) as file:
            called = source.name_of(index)
            return decode(file, called, reduce=SMALLER, max_pixels=source.max_pixels).rgb

    if any(isinstance(source, ZipSource) for source, _ in files):
        contents = [source.content_of(index) for source, index in files if isinstance(source, ZipSource)]
        return seen_together(contents, read)
    return same_pictures([Path(source.name_of(index)) for source, index in files], read)


def listed(config: DataConfig, kind: str) -> tuple[Path, Listing]:
    """Return the root, and the files of a folder or zip; DataError for those with labels of other kinds."""
    root = Path(str(config.root))
    if hint := convert_hint(root):
        raise DataError(f"{root}: {hint}")
    if kind != "zip":
        listing = list_folder(root, config.max_pixels)
        if is_detection_data(root) and not has_classes(listing):
            other = "which the recipes objects_* train on (objects_botnet50), expected folders of classes"
            raise DataError(f"{root}: COCO annotations, {other}")
        if not (listing.named or has_classes(listing)) and (inner := deeper(root)):
            raise DataError(f"{root}: {inner}")
        return root, listing
    listing = list_zip(root, config.max_pixels)
    for index, file in enumerate(listing.files):
        *folders, name = file.lower().split("/")
        suffix = name.rpartition(".")[2]
        is_coco = suffix == "json" and (
            _mentions_coco(listing, index)
            or "annotations" in folders
            or name in BESIDE_IMAGES
            or name.startswith("instances")
        )
        is_yolo, is_voc = (
            suffix == "txt" and "labels" in folders,
            suffix == "xml" and "annotations" in folders,
        )
        if is_coco or is_yolo or is_voc:
            kind = "COCO annotations" if is_coco else "labels of YOLO" if is_yolo else "labels of Pascal VOC"
            raise DataError(f"{root}: holds {kind} ({file}): unpack it, then botvision check FOLDER")
    return root, listing


def _mentions_coco(listing: Listing, index: int) -> bool:
    """Whether a JSON file at the root of a zip has the keys of COCO's."""
    if "/" in listing.files[index] or not isinstance(listing.source, ZipSource):
        return False
    try:
        content = listing.source.bytes_of(index)
    except DataError:
        return False
    return b'"annotations"' in content and b'"images"' in content


def _dataset(
    part: Labelled, config: DataConfig, name: str, train: bool = False, seed: int = 0
) -> ClassificationDataset:
    if config.limit is not None and config.limit < len(part.targets):
        part = part.take(spread(part.targets.reshape(len(part.targets), -1)[:, 0], config.limit))
    return ClassificationDataset(part, config, train=train, seed=seed, name=name)


def resolve_source(config: DataConfig) -> str:
    """Return the source that "auto" stands for.

    Raises:
        DataError: one line, if `root` is missing or fits none.
    """
    if config.source in SYNTHETIC:
        return config.source
    if config.root is None:
        raise DataError(config.missing_root)
    if config.source != "auto":
        return config.source
    root = Path(config.root)
    for kind in ("cifar10", "cifar100"):
        if cifar_folder(root, kind) is not None:
            return kind
    if root.is_file() and root.suffix.lower() != ".zip" and not zipfile.is_zipfile(root):
        raise DataError(f"{root}: expected a folder or a zip, got another file")
    return "zip" if root.is_file() else "folder"
