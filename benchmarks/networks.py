"""Whole networks to be measured: whose, in which dtype and memory format, forward or a training step.

BoTNets of all contenders have the same weights. Batch norm has the statistics of a batch, so that maps have
the sizes of a trained network's: untrained ones let them grow from block to block, and softmax saturates.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import botvision
from botvision.attention.layer import MHSA2d
from botvision.backbones.fuse import fold_batch_norm
from contenders import einsum_attention

EINSUM, FOLDED, TIMM = ", einsum", ", folded", "timm's "
LAYOUTS = {"NCHW": torch.contiguous_format, "channels-last": torch.channels_last}
MODES = ("eager", "compiled", "graph")
PASSES = {False: "forward", True: "training step"}
LEARNING_RATE = 1e-4  # of a step that is repeated on one batch: too small to get anywhere


@dataclass(frozen=True)
class Case:
    """One run.

    Attributes:
        contender: name of a network of ours or timm's; with ", einsum" its attention is the formula of the
            authors' code, with ", folded" its batch norms are merged into convolutions. A name that begins
            with "timm's " is built by timm alone, and without it has our attention in place of timm's.
        size: side of the images in pixels.
        batch: images.
        dtype: "fp32", or "bf16": all of the network in inference, autocast in training.
        training: forward, cross-entropy, backward and a step of fused SGD; else forward alone, no gradients.
        layout: memory format of images and weights.
        mode: "eager", "compiled" by torch.compile, or "graph", a CUDA graph.
        device: "cpu" or "cuda".
    """

    contender: str
    size: int
    batch: int
    dtype: str = "fp32"
    training: bool = False
    layout: str = "channels-last"
    mode: str = "eager"
    device: str = "cpu"


class EinsumAttention(MHSA2d):
    """The layer with the formula of the authors' code."""

    def forward(self, x: Tensor, sizes: Tensor | None = None) -> Tensor:
        """(B, C, H, W) -> (B, C, H, W) in the memory format of x; `sizes` is not known here."""
        assert sizes is None
        assert self.position is not None
        grid = (x.shape[2], x.shape[3])
        q, k, v = self.qkv(x).flatten(2).unflatten(1, (3, self.heads, -1)).mT.unbind(1)  # B N L D
        rows = self.position(grid).to(q.dtype)
        out = einsum_attention(q * self.scale, k, v, rows.height[0], rows.width[0], grid)
        last = x.is_contiguous(memory_format=torch.channels_last)
        memory_format = torch.channels_last if last else torch.contiguous_format
        return out.mT.flatten(1, 2).unflatten(2, grid).contiguous(memory_format=memory_format)


def build(case: Case) -> nn.Module:
    """The case's network, with weights of seed 0, where and how it runs."""
    name = case.contender.removesuffix(EINSUM).removesuffix(FOLDED).removeprefix(TIMM)
    torch.manual_seed(0)
    fixed = name not in botvision.list_models() and "botnet" in name
    size: dict[str, Any] = {"img_size": case.size} if name.startswith("botnet") and not fixed else {}
    network = timm.create_model(name, zero_init_last=False, **size)
    settle(network, *((256, 2) if fixed else (64, 8)))
    if fixed and not case.contender.startswith(TIMM):
        network = botvision.from_timm_botnet(network)
    if case.contender.endswith(EINSUM):
        use_einsum(network)
    if case.contender.endswith(FOLDED):
        fold_batch_norm(network, inplace=True)
    whole = case.dtype == "bf16" and not case.training
    network.to(case.device, torch.bfloat16 if whole else torch.float32)
    return network.to(memory_format=LAYOUTS[case.layout]).train(case.training)  # type: ignore[call-overload]


def use_einsum(network: nn.Module) -> None:
    """Give every attention layer of ours the formula of the authors' code, with the weights it has."""
    for module in network.modules():
        if isinstance(module, MHSA2d):
            module.__class__ = EinsumAttention


@torch.no_grad()
def settle(network: nn.Module, side: int, batch: int) -> None:
    """Let batch norm take the statistics of a batch of noise."""
    norms = [module for module in network.modules() if isinstance(module, nn.BatchNorm2d)]
    usual = [norm.momentum for norm in norms]
    for norm in norms:
        norm.momentum = 1.0
    network.train()(_images(batch, side))
    for norm, momentum in zip(norms, usual, strict=True):
        norm.momentum = momentum
    network.eval()


def step(case: Case) -> Callable[[], object]:
    """What is measured; it gives the logits, or in training the loss."""
    network = build(case)
    forward: Any = torch.compile(network) if case.mode == "compiled" else network
    images = _images(case.batch, case.size).to(case.device, next(network.parameters()).dtype)
    images = images.to(memory_format=LAYOUTS[case.layout])
    if not case.training:
        run = torch.inference_mode()(lambda: forward(images))
        return _captured(run) if case.mode == "graph" else run
    labels = torch.arange(case.batch, device=case.device)
    half = case.dtype == "bf16"
    train = training_step(network, lambda: F.cross_entropy(forward(images), labels), case.device, half)
    return _captured(train) if case.mode == "graph" else train


def training_step(
    network: nn.Module, loss_of: Callable[[], Tensor], device: str, half: bool
) -> Callable[[], Tensor]:
    """Forward, under autocast to bf16 if `half`, backward and a step of fused SGD; it gives the loss."""
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    optimizer = torch.optim.SGD(trained, LEARNING_RATE, momentum=0.9, weight_decay=1e-4, fused=True)

    def train() -> Tensor:
        optimizer.zero_grad(set_to_none=True)
        with torch.autocast(device, torch.bfloat16, half):
            loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss.detach()

    return train


def _images(batch: int, side: int) -> Tensor:
    return torch.randn(batch, 3, side, side, generator=torch.Generator().manual_seed(1))


def _captured(run: Callable[[], object]) -> Callable[[], object]:
    """The same work replayed without Python; needs CUDA."""
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):  # kernels are chosen and memory is reserved before the recording
        for _ in range(3):
            run()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = run()

    def replay() -> object:
        graph.replay()
        return result

    return replay
