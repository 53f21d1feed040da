"""Training samples by ours and by torchvision: COCO with masks, and batches of CIFAR-10.

torchvision's detection pipeline is the one of its reference training ("lsj"): every mask decoded to pixels,
the image and all masks scaled as a whole, padded and cut to the canvas, mirrored, made float. Its
classification pipeline works picture by picture, and a DataLoader makes batches of the results.
"""

import contextlib
import io
import zipfile
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, cycle, repeat
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms as v1
from torchvision import tv_tensors
from torchvision.datasets import CocoDetection, wrap_dataset_for_transforms_v2
from torchvision.ops import masks_to_boxes
from torchvision.transforms import v2

from botvision.config.data import DataConfig, DetectionDataConfig
from botvision.data.classification import ClassificationDataset
from botvision.data.detection import DetectionDataset
from botvision.data.loaders import build_loader

Target = dict[str, Tensor]
Sample = tuple[Tensor, Target]
Run = Callable[[], object]

# Contenders; what each of them delivers is equivalent to what the others of its group do.
OURS, OURS_PADDED = "ours, as a detector takes it", "ours, as torchvision delivers it"
COCO_OTHERS = ("torchvision, PIL", "torchvision, tensors", "torchvision, tensors, boxes from masks")
BATCHES = "ours"
CIFAR_OTHERS = ("torchvision v1, PIL", "torchvision v2, PIL", "torchvision v2, tensors")


class BoxesFromMasks(nn.Module):
    """New boxes from what the crop has left of the masks, as ours have them."""

    def forward(self, image: Tensor, target: dict[str, Any]) -> tuple[Tensor, dict[str, Any]]:
        """The image, and the target with other boxes; those of empty masks have no area."""
        masks = target["masks"].as_subclass(Tensor)
        seen = masks.bool().flatten(1).any(1)
        boxes = torch.zeros(len(masks), 4)
        boxes[seen] = masks_to_boxes(masks[seen])
        boxes[seen, 2:] += 1  # edges, not pixels
        edges: Any = tv_tensors.BoundingBoxes
        return image, target | {"boxes": edges(boxes, format="XYXY", canvas_size=masks.shape[-2:])}


def torchvision_detection(config: DetectionDataConfig, tensors: bool, boxes_from_masks: bool) -> v2.Compose:
    """The transforms of torchvision's reference training, "lsj", with the crop that also works on tensors."""
    steps: list[nn.Module] = [v2.ToImage()] if tensors else []
    steps += [
        v2.ScaleJitter(config.size, scale_range=config.scale_jitter, antialias=True),
        v2.RandomCrop(config.size, pad_if_needed=True),
        v2.RandomHorizontalFlip(0.5),
    ]
    steps += [] if tensors else [v2.ToImage()]
    steps.append(v2.ToDtype(torch.float32, scale=True))
    steps += [BoxesFromMasks()] if boxes_from_masks else []
    steps.append(v2.SanitizeBoundingBoxes(labels_getter=_labels_and_masks))
    return v2.Compose(steps)


def _labels_and_masks(inputs: tuple[Tensor, Target]) -> tuple[Tensor, Tensor]:
    return inputs[1]["labels"], inputs[1]["masks"]


def torchvision_coco(root: Path, transforms: v2.Compose | None) -> tuple[Any, dict[int, int]]:
    """torchvision's data set of COCO's training images with masks, and the place of each image id in it.

    Crowds are left out, as its reference training and ours do.
    """
    with contextlib.redirect_stdout(io.StringIO()):
        data = CocoDetection(root / "train2017", str(root / "annotations/instances_train2017.json"))
    for image, annotations in data.coco.imgToAnns.items():
        data.coco.imgToAnns[image] = [record for record in annotations if not record["iscrowd"]]
    data.transforms = transforms  # pyrefly: ignore[bad-assignment]
    places = {image: place for place, image in enumerate(data.ids)}
    return wrap_dataset_for_transforms_v2(data, target_keys=("boxes", "labels", "masks")), places


def padded(sample: tuple[Tensor, Target, int], canvas: tuple[int, int]) -> Sample:
    """Ours on the whole canvas, 0..1."""
    image, target, _ = sample
    height, width = image.shape[-2:]
    out = torch.zeros(3, *canvas)
    out[:, :height, :width].copy_(image).div_(255)
    masks = torch.zeros(len(target["masks"]), *canvas, dtype=torch.uint8)
    masks[:, :height, :width] = target["masks"]
    return out, target | {"masks": masks}


def coco_contenders(data: DetectionDataset, root: Path, chunk: int) -> dict[str, Run]:
    """Functions that each make the next `chunk` samples; all go through the same images in the same order."""
    config, indices = data.config, range(len(data))

    def ours(finish: Callable[[tuple[Tensor, Target, int]], object]) -> Run:
        keys = _endless([(epoch, index) for epoch in range(8) for index in indices], chunk)
        return lambda: [finish(data[key]) for key in next(keys)]

    def theirs(name: str) -> Run:
        transforms = torchvision_detection(config, "tensors" in name, "from masks" in name)
        found, places = torchvision_coco(root, transforms)
        keys = _endless([places[data.image_id(index)] for index in indices], chunk)
        return lambda: [found[key] for key in next(keys)]

    runs = {OURS: ours(lambda sample: sample), OURS_PADDED: ours(lambda sample: padded(sample, config.size))}
    return runs | {name: theirs(name) for name in COCO_OTHERS}


def _endless(keys: Sequence[Any], chunk: int) -> Iterator[list[Any]]:
    """Lists of `chunk` keys, over and over."""
    whole = cycle(keys)
    while True:
        yield [next(whole) for _ in range(chunk)]


class Pictures(Dataset[tuple[Tensor, int]]):
    """Pictures one by one, as torchvision's image folders give them."""

    def __init__(
        self, load: Callable[[int], object], targets: Tensor, transform: Callable[..., Tensor]
    ) -> None:
        """Take what gives picture i, targets int64 (N,), and the transform."""
        self.load, self.targets, self.transform = load, targets.tolist(), transform

    def __len__(self) -> int:
        return len(self.targets)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self.transform(self.load(index)), self.targets[index]


def torchvision_pictures(config: DataConfig, name: str) -> Callable[..., Tensor]:
    """The usual transforms of CIFAR: shifted within a border, mirrored, float, normalised."""
    mean, std, size = list(config.mean), list(config.std), config.size
    if "v1" in name:
        crop, flip = v1.RandomCrop(size, padding=config.padding), v1.RandomHorizontalFlip()
        return v1.Compose([crop, flip, v1.ToTensor(), v1.Normalize(mean, std)])
    first = [] if "tensors" in name else [v2.ToImage()]
    moves = [v2.RandomCrop(size, padding=config.padding), v2.RandomHorizontalFlip()]
    return v2.Compose([*moves, *first, v2.ToDtype(torch.float32, scale=True), v2.Normalize(mean, std)])


def cifar_contenders(
    data: ClassificationDataset, batch: int, batches: int, device: torch.device, members: Sequence[str] = ()
) -> dict[str, Run]:
    """Functions that each return the next batches on the device, in an order of their own.

    Args:
        data: cached in memory, or not to be cached.
        batch: images in a batch.
        batches: that a function returns.
        device: where batches are wanted.
        members: of the zip, where torchvision's have to decode, too; else they have decoded pictures.
    """
    if not members and device.type == "cuda":
        data.place(device)
    ours = build_loader(data, batch, train=True, seed=0, pin_memory=device.type == "cuda")
    runs: dict[str, Run] = {BATCHES: _batches(ours, batches, device)}
    for name in CIFAR_OTHERS:
        if members and "tensors" in name:
            continue
        load = (
            _unzipped(Path(str(data.config.root)), members) if members else _decoded(data, "tensors" in name)
        )
        pictures = Pictures(load, data.targets, torchvision_pictures(data.config, name))
        loader = DataLoader(pictures, batch, shuffle=True, drop_last=True, pin_memory=device.type == "cuda")
        runs[name] = _batches(loader, batches, device)
    return runs


def _batches(loader: Any, count: int, device: torch.device) -> Run:  # noqa: ANN401  any loader
    endless = chain.from_iterable(repeat(loader))
    return lambda: [[part.to(device, non_blocking=True) for part in next(endless)] for _ in range(count)]


def _decoded(data: ClassificationDataset, tensors: bool) -> Callable[[int], object]:
    images = [data.load(index) for index in range(len(data))]
    if tensors:
        return images.__getitem__
    return [Image.fromarray(image.permute(1, 2, 0).numpy()) for image in images].__getitem__


def _unzipped(path: Path, members: Sequence[str]) -> Callable[[int], object]:
    archive = zipfile.ZipFile(path)
    return lambda index: Image.open(io.BytesIO(archive.read(members[index]))).convert("RGB")
