"""Every row of the oracle table: the slides, the paper and counts made independently of this code."""

import pytest
import timm
import torch

from botvision.backbones.cost import Cost, count, stage_table
from botvision.backbones.models import create_model
from botvision.backbones.variants import VARIANTS


def _cost(name: str, size: int, **kwargs) -> Cost:
    with torch.device("meta"):  # shapes only
        return count(create_model(name, img_size=size, **kwargs), size)


def _resnet50(size: int) -> Cost:
    with torch.device("meta"):
        return count(timm.create_model("resnet50"), size)


def test_resnet50_at_1024_is_the_slides_row():
    cost = _resnet50(1024)
    assert cost.macs / 1e9 == pytest.approx(85.415, rel=1e-4)
    assert round(cost.params / 1e6, 3) == 25.557


def test_botnet50_at_1024_is_the_slides_row():
    cost = _cost("botnet50", 1024)
    assert cost.macs / 1e9 == pytest.approx(102.98, rel=1e-3)  # slides
    assert round(cost.macs / 1e9, 2) == 102.99  # counted
    assert round((cost.params - cost.position_params) / 1e6, 2) == 20.84
    assert round(cost.params / 1e6, 2) == 20.90
    assert cost.position_params == 128 * (2 * 127 + 4 * 63)  # one 64x64 map, two of 32x32


def test_botnet50_costs_1_2_times_the_multiply_adds_of_resnet50_at_1024():
    assert _cost("botnet50", 1024).macs / _resnet50(1024).macs == pytest.approx(1.2, abs=0.01)


def test_resnet50_at_224():
    cost = _resnet50(224)
    assert cost.macs / 1e9 == pytest.approx(4.09, rel=1e-3)
    assert round(cost.params / 1e6, 2) == 25.56


@pytest.mark.parametrize(
    ("name", "macs", "params"),
    [
        ("botnet50", 4.02, 20.85),
        ("botnet_s1_50", 5.42, 20.86),
        ("botnet101", None, 39.84),
        ("botnet152", None, 55.49),
    ],
)
def test_botnets_at_224(name: str, macs: float | None, params: float):
    cost = _cost(name, 224)
    assert round(cost.params / 1e6, 2) == params
    if macs is not None:
        assert cost.macs / 1e9 == pytest.approx(macs, abs=0.005)


# The paper's column rounds to one digit. T4 and T3 differ by 17 c4 blocks, which is 3.712e9, while the
# printed 10.9 and 7.3 differ by 3.5 to 3.7: no count meets both. Ours meets every row but T4 (0.6% above it).
T_FAMILY = [
    ("botnet_t3", 224, 7.3, 7.252, 33.5, 30.4),
    ("botnet_t4", 224, 10.9, 10.966, 54.7, 51.6),
    ("botnet_t5", 256, 19.3, 19.305, 75.1, 68.9),
    ("botnet_t6", 320, 23.3, 23.327, 53.9, 47.7),
    ("botnet_t7", 384, 45.8, 45.801, 75.1, 68.9),
]


@pytest.mark.parametrize(("name", "size", "printed", "counted", "se_all", "se_conv"), T_FAMILY)
def test_t_family(name: str, size: int, printed: float, counted: float, se_all: float, se_conv: float):
    assert VARIANTS[name].img_size == size
    everywhere, convolutions = _cost(name, size, se="all"), _cost(name, size, se="conv")
    assert everywhere.macs / 1e9 == pytest.approx(counted, rel=1e-3)
    if name != "botnet_t4":
        assert round(everywhere.macs / 1e9, 1) == printed
    assert everywhere.macs / 1e9 == pytest.approx(printed, rel=7e-3)
    # The paper's counting of parameters here: neither batch norm nor position tables.
    assert round(_bare_params(convolutions), 1) == se_conv
    # With SE everywhere T3 and T4 are on the printed number; T5, T6 and T7 come out 0.09e6 to 0.11e6 (0.2%)
    # above it, as 12 blocks of 0.5243e6 exceed the printed difference of 6.2e6 even before their biases.
    assert _bare_params(everywhere) == pytest.approx(se_all, rel=2.1e-3)
    blocks = VARIANTS[name].layers[3]
    assert everywhere.params - convolutions.params == blocks * (2 * 2048 * 128 + 128 + 2048)


def _bare_params(cost: Cost) -> float:
    return (cost.params - cost.norm_params - cost.position_params) / 1e6


@pytest.mark.parametrize("name", ["botnet50", "resnet50", "botnet_t3", "botnet14_tiny", "resnet26_small"])
def test_stages_add_up_to_the_whole(name: str):
    with torch.device("meta"):
        model = create_model(name)
    rows, whole = stage_table(model, 96), count(model, 96)
    assert sum(row.params for row in rows) == whole.params
    assert sum(row.macs for row in rows) == whole.macs


def test_stage_table_is_the_slides_architecture_table():
    with torch.device("meta"):
        rows = stage_table(create_model("botnet50"), 1024)
    assert [(row.stage, row.output, row.blocks) for row in rows] == [
        ("c1", (512, 512), "7x7, 64"),
        ("c2", (256, 256), "[1x1, 64; 3x3, 64; 1x1, 256] x3"),
        ("c3", (128, 128), "[1x1, 128; 3x3, 128; 1x1, 512] x4"),
        ("c4", (64, 64), "[1x1, 256; 3x3, 256; 1x1, 1024] x6"),
        ("c5", (32, 32), "[1x1, 512; MHSA, 512; 1x1, 2048] x3"),
        ("head", (1, 1), "average pool, 1000"),
    ]


def test_counting_leaves_the_model_alone():
    model = create_model("botnet14_tiny", kernel="folded")
    before = {name: value.clone() for name, value in model.state_dict().items()}
    model.train()
    count(model, (40, 56))
    assert model.training
    assert all(m.kernel == "folded" for m in model.modules() if type(m).__name__ == "MHSA2d")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_kernel_of_a_model_does_not_change_its_cost():
    costs = {
        kernel: _cost("botnet14_tiny", 64, kernel=kernel)
        for kernel in ("auto", "mask", "folded", "reference")
    }
    assert len(set(costs.values())) == 1
