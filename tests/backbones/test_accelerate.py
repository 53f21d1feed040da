"""SAM's image encoders with our kernels: the same outputs and gradients, and nothing else touched."""

import copy
import pickle
from typing import Any

import pytest
import timm
import torch
from torch import Tensor, nn

import botvision as bv
from botvision.backbones import accelerate as room

TINY = {"embed_dim": 48, "depth": 3, "num_heads": 3, "neck_chans": 16, "num_classes": 0, "window_size": 5}


def encoder(**changes: Any) -> Any:
    """timm's encoder with two windowed blocks and a global one, and tables that count."""
    torch.manual_seed(0)
    options: dict[str, Any] = {**TINY, "img_size": 192, "global_attn_indexes": (2,), **changes}
    model = timm.create_model("samvit_base_patch16", **options)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "rel_pos" in name or name == "pos_embed":
                weight.normal_(std=0.3)
            elif "qkv.weight" in name:
                weight.mul_(10)
    return model.eval()


def outcome(model: nn.Module, x: Tensor) -> list[Tensor]:
    """Output and the gradients of all weights."""
    out = model(x)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    return [out, *torch.autograd.grad(out.square().sum(), weights, materialize_grads=True)]


def assert_close(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-10) -> None:
    for one, two in zip(found, expected, strict=True):
        torch.testing.assert_close(one, two, rtol=0, atol=tolerance * max(1.0, two.abs().max().item()))


@pytest.mark.parametrize("size", [(192, 192), (176, 240), (96, 128)], ids=["own", "larger", "smaller"])
@pytest.mark.parametrize("kernel", ["auto", "tiled", "folded", "chunked", "mask"])
def test_outputs_and_gradients(kernel: Any, size: tuple[int, int]) -> None:
    """In fp64; windows that are padded, and maps that stretch the tables or press them together."""
    model = encoder().double()
    model.pos_embed = None  # timm's own is for one size
    x = torch.randn(2, 3, *size, dtype=torch.float64)
    expected = outcome(model, x)
    assert bv.accelerate(model, kernel) == 3
    assert_close(outcome(model, x), expected)


def test_the_position_term_counts() -> None:
    model, x = encoder().double(), torch.randn(1, 3, 192, 192, dtype=torch.float64)
    before = model(x)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "rel_pos" in name:
                weight.copy_(weight.flip(0))
    assert (model(x) - before).abs().max() > 1e-3 * before.abs().max()
    bv.accelerate(model)
    assert (model(x) - before).abs().max() > 1e-3 * before.abs().max()


def test_restored_it_is_what_it_was() -> None:
    model, x = encoder(), torch.randn(1, 3, 192, 192)
    names, kinds = list(model.state_dict()), [type(module) for module in model.modules()]
    expected = model(x)
    assert bv.accelerate(model) == bv.accelerate(model, "chunked") == 3
    assert list(model.state_dict()) == names
    assert all(isinstance(module, kind) for module, kind in zip(model.modules(), kinds, strict=True))
    assert bv.restore(copy.deepcopy(model)) == 3
    assert bv.restore(model) == 3
    assert [type(module) for module in model.modules()] == kinds
    assert torch.equal(model(x), expected)
    assert bv.restore(model) == 0
    pickle.dumps(model)


def test_half_precision_and_autocast() -> None:
    """Little farther from fp32 than timm's own in bf16: tiles round logits, torch's fused kernel does not."""
    model, x = encoder(), torch.randn(1, 3, 192, 192)
    with torch.no_grad():
        exact = model(x)
        with torch.autocast("cpu", torch.bfloat16):
            theirs = model(x).float()
            bv.accelerate(model)
            ours = model(x).float()
    errors = [float((out - exact).square().mean().sqrt()) for out in (ours, theirs)]
    assert 0 < errors[0] <= 1.5 * errors[1]


def test_compiles_as_one_graph() -> None:
    model, x = encoder(), torch.randn(1, 3, 192, 192)
    expected = model(x)
    bv.accelerate(model)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), expected, rtol=1e-4, atol=1e-4)


def test_norms_of_queries_and_dropout_are_kept() -> None:
    model, x = encoder(qk_norm=True, attn_drop_rate=0.5), torch.randn(1, 3, 192, 192)
    expected = model(x)
    bv.accelerate(model)
    torch.testing.assert_close(model(x), expected, rtol=1e-4, atol=1e-4)
    model.train()
    assert not torch.equal(model(x), model(x))


def test_attention_without_relative_positions_is_left() -> None:
    model = encoder(use_rel_pos=False)
    with pytest.raises(ValueError, match=r"VisionTransformerSAM has no attention with .* timm's samvit_\*"):
        bv.accelerate(model)
    with pytest.raises(ValueError, match="ResNet has no attention"):
        bv.accelerate(timm.create_model("resnet18"))
    with pytest.raises(ValueError, match="kernel must be one of auto"):
        bv.accelerate(encoder(), "fast")  # pyrefly: ignore[bad-argument-type]


class Theirs(nn.Module):
    """An attention with the parts that others' have, and the formula as it stands in the papers."""

    def __init__(self, heads: str) -> None:
        super().__init__()
        setattr(self, heads, 2)
        self.heads, self.scale, self.use_rel_pos = 2, 4**-0.5, True
        self.qkv, self.proj = nn.Linear(8, 24), nn.Linear(8, 8)
        self.rel_pos_h = nn.Parameter(torch.randn(2 * 3 - 1, 4))
        self.rel_pos_w = nn.Parameter(torch.randn(2 * 5 - 1, 4))

    def formula(self, x: Tensor) -> tuple[Tensor, Tensor]:
        q, k, v = self.qkv(x).reshape(len(x), 15, 3, 2, 4).permute(2, 0, 3, 1, 4)
        y, z = torch.arange(15) // 5, torch.arange(15) % 5
        table = self.rel_pos_h[y[:, None] - y + 2] + self.rel_pos_w[z[:, None] - z + 4]  # 15 15 4
        logits = self.scale * q @ k.mT + torch.einsum("bnid,ijd->bnij", q, table)
        weights = logits.softmax(-1)
        return self.proj((weights @ v).transpose(1, 2).reshape(x.shape)), weights


@pytest.mark.parametrize("name", [name for name in room.KNOWN if "timm" not in name])
def test_the_encoders_of_others(name: str) -> None:
    """Classes of those names, with the attributes and signatures that they have there."""
    heads = room.KNOWN[name]

    class Plain(Theirs):
        def forward(self, x: Tensor) -> Tensor:
            return self.formula(x)[0]

    class Transformers(Theirs):
        dropout = 0.0

        def forward(
            self, hidden_states: Tensor, output_attentions: bool | None = None
        ) -> tuple[Tensor, Tensor | None]:
            out, weights = self.formula(hidden_states)
            return out, weights if output_attentions else None

    kind = Plain if heads == "num_heads" else Transformers
    kind.__module__, _, kind.__qualname__ = name.rpartition(".")
    torch.manual_seed(0)
    model, x = nn.Sequential(kind(heads)), torch.randn(2, 3, 5, 8)
    expected = model(x)
    assert bv.accelerate(model) == 1
    found = model(x)
    if heads == "num_heads":
        torch.testing.assert_close(found, expected)
    else:
        torch.testing.assert_close(found[0], expected[0])
        assert found[1] is None
        assert model[0](x, output_attentions=True)[1].shape == (2, 2, 15, 15)
