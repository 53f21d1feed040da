"""Least squares from sums against the same from the cells themselves."""

import copy

import pytest
import torch
from torch import Tensor, nn

from botvision.backbones.warm_start import Moments, _take_over_norm


@pytest.fixture
def cells() -> tuple[Tensor, Tensor]:
    torch.manual_seed(0)
    inputs = torch.randn(200, 6) @ torch.randn(6, 6) + 1
    return inputs, inputs @ torch.randn(6, 3) + 0.5 * torch.randn(200, 3) + 2


def test_a_ridge_pulls_towards_the_prior(cells: tuple[Tensor, Tensor]):
    inputs, outputs = (part.double() for part in cells)
    prior = torch.randn(6, 3, dtype=torch.float64)
    found = Moments.of(*cells).solve(prior, 0.3)
    # the same as further cells whose outputs are the prior's
    pull = (0.3 * inputs.square().sum(0).mean()).sqrt() * torch.eye(6, dtype=torch.float64)
    expected = torch.linalg.lstsq(torch.cat([inputs, pull]), torch.cat([outputs, pull @ prior])).solution
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)
    far = Moments.of(*cells).solve(prior, 1e9)
    torch.testing.assert_close(far, prior, rtol=1e-4, atol=1e-4)


def test_sums_of_parts_say_what_all_cells_say(cells: tuple[Tensor, Tensor]):
    inputs, outputs = (part.double() for part in cells)
    moments = Moments.of(inputs[:70].float(), outputs[:70].float())
    moments = moments + Moments.of(inputs[70:].float(), outputs[70:].float())
    values = torch.randn(6, 3, dtype=torch.float64)
    own = inputs @ values
    mean, variance, covariance = moments.spread(values)
    deviation = own - own.mean(0), outputs - outputs.mean(0)
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(mean, own.mean(0), **close)
    torch.testing.assert_close(variance, deviation[0].square().mean(0), **close)
    torch.testing.assert_close(covariance, (deviation[0] * deviation[1]).mean(0), **close)
    torch.testing.assert_close(moments.variance, deviation[1].square().mean(0), **close)
    torch.testing.assert_close(
        moments.missed(values), (deviation[0] - deviation[1]).square().mean(0), **close
    )


def test_the_norm_undoes_what_shrank_the_values(cells: tuple[Tensor, Tensor]):
    """Half of the values, by half of the output, give what all of them give."""
    inputs, outputs = cells
    trained = nn.BatchNorm2d(3)
    with torch.no_grad():
        trained.running_mean.copy_(outputs.mean(0) + 0.3)  # pyrefly: ignore[missing-attribute]
        trained.running_var.copy_(outputs.var(0) * 1.2)  # pyrefly: ignore[missing-attribute]
        trained.weight.copy_(torch.tensor([0.5, 1.0, 2.0]))
        trained.bias.copy_(torch.tensor([0.1, -0.2, 0.3]))
        moments = Moments.of(inputs, outputs)
        values = moments.solve(torch.zeros(6, 3, dtype=torch.float64), 0.0)
        given = []
        for part in (1.0, 0.5):
            norm = copy.deepcopy(trained)
            _take_over_norm(norm, [moments], [part * values])
            given.append(norm.eval()((inputs @ (part * values).float()).mT[None, :, :, None]))
            batch = norm.train()((inputs @ (part * values).float()).mT[None, :, :, None])
            torch.testing.assert_close(batch, given[-1], rtol=1e-3, atol=1e-3)
        torch.testing.assert_close(given[1], given[0], rtol=1e-3, atol=1e-3)
        wanted = trained.eval()(outputs.mT[None, :, :, None])
        torch.testing.assert_close(given[0].mean((0, 2, 3)), wanted.mean((0, 2, 3)), rtol=1e-3, atol=1e-3)
