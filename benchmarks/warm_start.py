"""What is left of a pretrained ResNet-50 in a BoTNet-50, before any training, by how its attention begins.

    python benchmarks/warm_start.py photos/ --weights resnet50.safetensors   # photos/train/<class>/, val/
    python benchmarks/warm_start.py --smoke --out results/try                # drawn images, a small network

Every way to begin is measured on images that were not used for it: the nearest class mean of the last
features (means of the training images), how much of each block's output is missed where the block is given
the ResNet's own maps, and how much of the last map is missed with the blocks in a row. Steps of distillation,
which need a training loop and lost, stand beside the closed forms.
"""

import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.backbones import warm_start
from botvision.backbones.loading import load_weights
from botvision.backbones.models import create_model
from botvision.backbones.surgery import from_resnet
from botvision.config.data import DataConfig
from botvision.data.classification import ClassificationDataset, open_splits
from harness import Row, arguments, environment, progress, write

HEAD = """\
# What is left of a pretrained ResNet in a BoTNet, before any training

Missed parts are mean squares over the variance of the ResNet's own output, in percent, on the validation
images: of each block of c5 alone, then of the last map. "fit, N" is least squares on N training images,
no labels; "distilled" trains each attention with its tables, bn2, conv3 and bn3 to the block's output for
300 steps of 32 maps (AdamW, one cycle). One seed. The settings of `botvision.backbones.warm_start` are varied
one at a time.
"""


@dataclass(frozen=True)
class Tail:
    """A ResNet from c5 on, and what reaches it.

    Attributes:
        resnet: with trained weights.
        train: (M, C, H, W) maps before c5 of the training images, `labels` (M,) their classes.
        val: (V, C, H, W) of the validation images, `val_labels` (V,) their classes.
        size: (height, width) of the images in pixels.
    """

    resnet: nn.Module
    train: Tensor
    labels: Tensor
    val: Tensor
    val_labels: Tensor
    size: tuple[int, int]

    def student(self, **options: Any) -> nn.Module:  # noqa: ANN401
        """A BoTNet with new attention; always the same random values."""
        torch.manual_seed(0)
        return from_resnet(self.resnet, warm_start="new", img_size=self.size, **options)

    def kernels(self, blocks: Sequence[int] = (0, 1, 2)) -> dict[str, Tensor]:
        """Kernels of c5's convolutions by name."""
        return {f"layer4.{n}.conv2": self.resnet.get_parameter(f"layer4.{n}.conv2.weight") for n in blocks}


@torch.inference_mode()
def through(layers: Callable[[Tensor], Tensor], maps: Tensor, batch: int = 64) -> Tensor:
    """The layers' output for all maps."""
    return torch.cat([layers(part) for part in maps.split(batch)])


def trunk(network: nn.Module) -> Callable[[Tensor], Tensor]:
    """A ResNet of timm up to c4."""
    parts = [
        network.get_submodule(n) for n in ("conv1", "bn1", "act1", "maxpool", "layer1", "layer2", "layer3")
    ]
    return nn.Sequential(*parts)


def measured(tail: Tail, network: nn.Module) -> dict[str, object]:
    """Nearest class mean, and what is missed, in percent."""
    ours, theirs = (net.eval().get_submodule("layer4") for net in (network, tail.resnet))
    features, unseen = (through(lambda x: ours(x).mean((2, 3)), maps) for maps in (tail.train, tail.val))
    means = torch.stack([features[tail.labels == k].mean(0) for k in range(int(tail.labels.max()) + 1)])
    right = torch.cdist(unseen, means).argmin(1) == tail.val_labels
    row: dict[str, object] = {"nearest class mean": 100 * float(right.float().mean())}
    x = tail.val
    for number, (own, other) in enumerate(zip(ours.children(), theirs.children(), strict=True), 1):
        expected = through(other, x)
        row[f"block {number}"] = missed(through(own, x), expected)
        x = expected
    return row | {"last map": missed(through(ours, tail.val), x)}


def missed(found: Tensor, expected: Tensor) -> float:
    return 100 * float((found - expected).square().mean() / expected.var())


def distil(tail: Tail, network: nn.Module, steps: int = 300, batch: int = 32, lr: float = 1e-3) -> None:
    """Train each block's attention, bn2, conv3 and bn3 to the ResNet's output of the block."""
    ours, theirs = (list(net.get_submodule("layer4").children()) for net in (network, tail.resnet.eval()))
    inputs = [tail.train]
    for block in theirs:
        inputs.append(through(block, inputs[-1]))
    network.eval()
    learning = [getattr(block, name) for block in ours for name in ("conv2", "bn2", "conv3", "bn3")]
    weights = [weight for part in learning for weight in part.train().parameters()]
    optimizer = torch.optim.AdamW(weights, lr=lr, weight_decay=0.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, lr, total_steps=steps)
    generator = torch.Generator().manual_seed(0)
    for _ in range(steps):
        chosen = torch.randint(len(tail.train), (batch,), generator=generator)
        losses = [
            F.mse_loss(block(x[chosen].clone()), y[chosen].clone()) / y[chosen].square().mean()
            for block, x, y in zip(ours, inputs[:-1], inputs[1:], strict=True)
        ]
        optimizer.zero_grad()
        torch.stack(losses).sum().backward()
        optimizer.step()
        schedule.step()


def starts(tail: Tail, smoke: bool) -> dict[str, Callable[[], nn.Module]]:
    """Ways to begin, by name."""

    def begun(images: int = 0, settings: Mapping[str, float] | None = None, **options: Any) -> nn.Module:  # noqa: ANN401
        network = tail.student(**options)
        chosen = torch.linspace(0, len(tail.train) - 1, images).long() if images else None
        maps = None if chosen is None else tail.train[chosen].split(32)
        with ExitStack() as stack:
            for setting, value in (settings or {}).items():
                stack.enter_context(patch.object(warm_start, setting, value))
            warm_start.start_as_convolutions(
                network, tail.kernels(), maps, run=network.get_submodule("layer4")
            )
        return network

    def zero() -> nn.Module:
        network = tail.student()
        warm_start.zero_last_norms(network, tail.kernels())
        return network

    def distilled() -> nn.Module:
        network = tail.student()
        distil(tail, network, 3 if smoke else 300)
        return network

    ways: dict[str, Callable[[], nn.Module]] = {
        "ResNet": lambda: tail.resnet,
        "new": tail.student,
        "new, last norm zero": zero,
        "new, last block only": lambda: tail.student(c5_blocks=[0, 0, 1]),
        "taps": begun,
        **{f"fit, {n}": (lambda n=n: begun(n)) for n in (16, 64, 256) if n <= len(tail.train)},
        "distilled": distilled,
    }
    most = min(256, len(tail.train))
    ways |= {
        f"fit, {most}, {position}": (lambda p=position: begun(most, position=p))
        for position in ("position", "content", "absolute", "even", "own")
    }
    varied = {
        "WINDOW": (0.6, 1.2),
        "CORRELATION": (0.5, 2.0),
        "RANDOM_PART": (0.0, 1.0),
        "FLOOR": (3.0, 20.0),
    }
    for setting, values in varied.items():
        for value in values:
            name = f"{setting.lower().replace('_', ' ')} {value:g}"
            ways[f"taps, {name}"] = lambda s=setting, v=value: begun(0, {s: v})
            if setting != "CORRELATION":
                ways[f"fit, {most}, {name}"] = lambda s=setting, v=value: begun(most, {s: v})
    return dict(list(ways.items())[:8]) if smoke else ways


def opened(args: Namespace) -> Tail:
    """The ResNet, and its maps before c5 of all images."""
    torch.manual_seed(0)
    if args.smoke:
        config = DataConfig(
            source="generated", image_size=64, num_images=40, num_val_images=16, num_classes=4
        )
        resnet = create_model("resnet14_nano", num_classes=4, layers=(1, 1, 1, 3), zero_init_last=False)
    else:
        config = DataConfig(root=str(args.data), image_size=args.size)
        resnet = create_model("resnet50")
        load_weights(resnet, args.weights, strict=True)
    splits = open_splits(config)
    if args.smoke:  # norms that have seen data
        for _ in range(10):
            resnet.train()(splits.train.__getitems__(range(40))[0])
    before = trunk(resnet.eval())

    def maps(data: ClassificationDataset) -> Tensor:
        parts = [list(range(len(data)))[start : start + 32] for start in range(0, len(data), 32)]
        shown = progress(parts, f"maps of {data.name}")
        return torch.cat([through(before, data.__getitems__(part)[0]) for part in shown])

    train, val = splits.train, splits.val
    return Tail(resnet, maps(train), train.targets, maps(val), val.targets, config.size)


def main() -> None:
    parser: ArgumentParser = arguments(__doc__ or "")
    parser.add_argument("data", nargs="?", type=Path, help="folder with train/<class>/ and val/<class>/")
    parser.add_argument("--weights", type=Path, help="safetensors file of ResNet-50")
    parser.add_argument("--size", type=int, default=160, help="side of the images (default: %(default)s)")
    args = parser.parse_args()
    if not args.smoke and (args.data is None or args.weights is None):
        parser.error("DATA and --weights FILE are needed; --smoke goes without")
    tail = opened(args)
    rows: list[Row] = []
    for name, begin in progress(list(starts(tail, args.smoke).items()), "starts"):
        clock = time.perf_counter()
        network = begin()
        seconds = time.perf_counter() - clock
        rows.append({"start": name, **measured(tail, network), "seconds": seconds})
    images = f"{len(tail.train)} + {len(tail.val)} images of {tail.size[0]}x{tail.size[1]}"
    out = args.out or Path(__file__).parents[1] / "results"
    write("warm_start", rows, HEAD, out, {"data": images, "dtype": "fp32", **environment("cpu")})
    print(f"written: {out}/warm_start.md")


if __name__ == "__main__":
    main()
