"""Metrics against cases worked by hand."""

import json
import math

import pytest
import torch

from botvision.evaluation.classification import ClassificationEvaluator


def one_hot(predicted: list[int], classes: int, height: float = 2.0) -> torch.Tensor:
    return height * torch.nn.functional.one_hot(torch.tensor(predicted), classes).float()


def test_hand_worked_case_with_three_classes():
    # truth 0: predicted 0, 0, 1;  truth 1: predicted 1;  truth 2: predicted 0, 2
    evaluator = ClassificationEvaluator(["a", "b", "c"])
    evaluator.update(one_hot([0, 0, 1, 1], 3), torch.tensor([0, 0, 0, 1]))
    evaluator.update(one_hot([0, 2], 3), torch.tensor([2, 2]))
    metrics = evaluator.compute()
    assert metrics.count == 6
    assert metrics.confusion == ((2, 1, 0), (0, 1, 0), (1, 0, 1))
    assert metrics.top1 == pytest.approx(4 / 6)
    assert metrics.per_class == pytest.approx((2 / 3, 1, 1 / 2))
    assert math.isnan(metrics.top5)
    # softmax of (2, 0, 0): e^2 / (e^2 + 2) for the right class, 1 / (e^2 + 2) for a wrong one
    total = math.exp(2) + 2
    assert metrics.loss == pytest.approx(
        (4 * -math.log(math.exp(2) / total) + 2 * math.log(total)) / 6, rel=1e-6
    )
    said = evaluator.predictions()
    assert said.predicted.tolist() == [0, 0, 1, 1, 0, 2]
    assert said.target.tolist() == [0, 0, 0, 1, 2, 2]
    evaluator.reset()
    assert len(evaluator.predictions().target) == 0


def test_top5_of_seven_classes():
    logits = torch.tensor([[7.0, 6, 5, 4, 3, 2, 1]]).repeat(3, 1)
    evaluator = ClassificationEvaluator([str(k) for k in range(7)])
    evaluator.update(logits, torch.tensor([0, 4, 5]))  # first, fifth and sixth place
    metrics = evaluator.compute()
    assert metrics.top1 == pytest.approx(1 / 3)
    assert metrics.top5 == pytest.approx(2 / 3)


def test_top5_of_five_classes_is_always_one():
    evaluator = ClassificationEvaluator(list("abcde"))
    evaluator.update(one_hot([0], 5), torch.tensor([4]))
    assert evaluator.compute().top5 == 1.0


def test_classes_without_images_have_no_accuracy():
    evaluator = ClassificationEvaluator(["a", "b"])
    evaluator.update(one_hot([1, 1], 2), torch.tensor([1, 1]))
    metrics = evaluator.compute()
    assert metrics.per_class[1] == 1.0
    assert math.isnan(metrics.per_class[0])


def test_ties_go_to_the_first_class():
    evaluator = ClassificationEvaluator(["a", "b"])
    evaluator.update(torch.zeros(1, 2), torch.tensor([1]))
    assert evaluator.compute().confusion == ((0, 0), (1, 0))


def test_batches_do_not_matter():
    torch.manual_seed(0)
    logits, targets = torch.randn(50, 6), torch.randint(0, 6, (50,))
    names = [str(k) for k in range(6)]
    whole, parts = ClassificationEvaluator(names), ClassificationEvaluator(names)
    whole.update(logits, targets)
    parts.update(logits[:17], targets[:17])
    parts.update(logits[17:], targets[17:])
    assert parts.compute().confusion == whole.compute().confusion
    assert parts.compute().top5 == whole.compute().top5
    assert parts.compute().loss == pytest.approx(whole.compute().loss, rel=1e-6)
    assert whole.compute().top1 == pytest.approx(float((logits.argmax(1) == targets).float().mean()))


def test_json_has_null_for_what_is_not_known():
    evaluator = ClassificationEvaluator(["a", "b"])
    evaluator.update(one_hot([1], 2), torch.tensor([1]))
    values = json.loads(json.dumps(evaluator.compute().to_dict(), allow_nan=False))
    assert (values["top1"], values["top5"], values["per_class"]) == (1.0, None, [None, 1.0])
    assert (values["count"], values["confusion"], values["classes"]) == (1, [[0, 0], [0, 1]], ["a", "b"])


def test_bfloat16_logits_are_summed_in_single_precision():
    logits = torch.randn(64, 10).to(torch.bfloat16)
    targets = torch.randint(0, 10, (64,))
    evaluator = ClassificationEvaluator([str(k) for k in range(10)])
    evaluator.update(logits, targets)
    expected = float(torch.nn.functional.cross_entropy(logits.double(), targets))
    assert evaluator.compute().loss == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_logits_that_are_not_finite_have_no_metrics(value):
    evaluator = ClassificationEvaluator(["a", "b"])
    evaluator.update(torch.tensor([[value, 0.0], [0.0, value], [1.0, 0.0]]), torch.tensor([0, 0, 0]))
    assert evaluator.not_finite == 2
    with pytest.raises(ValueError, match="the logits of 2 of 3 images are not finite"):
        evaluator.compute()
    evaluator.reset()
    evaluator.update(torch.tensor([[1.0, 0.0]]), torch.tensor([0]))
    assert evaluator.compute().top1 == 1.0


def test_wrong_shapes_and_targets():
    evaluator = ClassificationEvaluator(["a", "b"])
    with pytest.raises(ValueError, match=r"shape \(1, 3\), expected \(1, 2\)"):
        evaluator.update(torch.zeros(1, 3), torch.tensor([0]))
    with pytest.raises(ValueError, match=r"from 0 to 2, expected 0\.\.1"):
        evaluator.update(torch.zeros(2, 2), torch.tensor([0, 2]))
    with pytest.raises(ValueError, match="no images"):
        evaluator.compute()
