import pytest
import timm
import torch

from botvision.backbones.cost import count, stage_table, step_time
from botvision.backbones.models import create_model


@pytest.mark.parametrize("train", [True, False])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_step_time_measures_a_copy(train: bool, dtype: torch.dtype):
    model = create_model("botnet14_tiny").eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    random_state = torch.get_rng_state()
    time = step_time(model, (33, 65), batch=2, train=train, repeats=2, dtype=dtype)
    assert 0 < time.best <= time.median
    assert (time.repeats, time.batch, time.train, time.device) == (2, 2, train, "cpu")
    assert time.dtype == str(dtype).split(".")[1]
    assert not model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.grad is None for p in model.parameters())
    assert torch.equal(torch.get_rng_state(), random_state)


def test_a_training_step_is_a_forward_and_a_backward_pass_for_every_repeat():
    model, passes = create_model("botnet14_tiny"), []
    model.register_forward_hook(lambda *_: passes.append("forward"))
    model.get_submodule("layer1").register_full_backward_hook(lambda *_: passes.append("backward"))
    step_time(model, 64, batch=2, train=True, repeats=2)
    assert passes == ["forward", "backward"] * 3  # the first warms up
    passes.clear()
    step_time(model, 64, batch=2, train=False, repeats=2)
    assert passes == ["forward"] * 3


def test_a_batch_without_statistics_and_a_missing_device_are_refused():
    model = create_model("botnet14_tiny")
    with pytest.raises(ValueError, match="1 image of 32x32 leaves batch norm one value a channel"):
        step_time(model, 32, batch=1)
    assert step_time(model, 32, batch=1, train=False, repeats=1).batch == 1
    with pytest.raises(ValueError, match="device 'abacus' is not available"):
        step_time(model, 32, device="abacus")


def test_feature_networks_and_grey_images_are_counted_too():
    model = create_model("botnet14_tiny", features_only=True, in_chans=1)
    whole = create_model("botnet14_tiny", in_chans=1, num_classes=0)
    assert count(model, 64).macs == count(whole, 64).macs
    assert step_time(model, 64, batch=2, repeats=1).median > 0


def test_attention_is_counted_by_hand():
    heads, dim, cells = 4, 128, 16
    with torch.device("meta"):
        attention = create_model("botnet_s1_14_tiny", img_size=64).get_submodule("layer4.0.conv2")
    expected = cells * 3 * dim * dim + 2 * cells**2 * dim + cells * dim * (7 + 7)
    assert count(attention, 4).macs == expected
    assert count(attention, 4).position_params == dim // heads * (7 + 7)


def test_what_cannot_be_counted_is_refused():
    model = create_model("resnet14_tiny")
    with pytest.raises(ValueError, match=r"image size .* got \(64, 0\)"):
        count(model, (64, 0))
    with pytest.raises(ValueError, match="batch and repeats must be at least 1, got 0 and 5"):
        step_time(model, 64, batch=0)
    with torch.device("meta"), pytest.raises(ValueError, match="VGG has no conv1; the table needs a ResNet"):
        stage_table(timm.create_model("vgg11"), 64)
