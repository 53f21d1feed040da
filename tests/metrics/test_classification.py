"""Metrics against cases worked by hand."""

import json
import math

import pytest
import torch

from botvision.metrics.classification import ClassificationEvaluator


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


QUANTITY = ("distance", "px", (0.0, 10.0, 20.0, 40.0))


def test_hand_worked_breakdown():
    # distances 0, 9.9 | 10, 19, 10 | -: right, wrong | right, right, wrong | no image
    evaluator = ClassificationEvaluator(["a", "b"], QUANTITY)
    evaluator.update(one_hot([0, 1], 2), torch.tensor([0, 0]), torch.tensor([0.0, 9.9]))
    evaluator.update(one_hot([1, 1, 0], 2), torch.tensor([1, 1, 1]), torch.tensor([10.0, 19.0, 10.0]))
    found = evaluator.compute().breakdown
    assert found is not None
    assert (found.count, found.right) == ((2, 3, 0), (1, 2, 0))
    assert found.top1[:2] == pytest.approx((1 / 2, 2 / 3))
    assert found.error[:2] == pytest.approx((math.sqrt(1 / 8), math.sqrt(2 / 27)))
    assert math.isnan(found.top1[2])
    assert math.isnan(found.error[2])
    values = json.loads(json.dumps(evaluator.compute().to_dict(), allow_nan=False))["top1_by_distance"]
    assert (values["name"], values["unit"], values["edges"]) == ("distance", "px", [0, 10, 20, 40])
    assert (values["count"], values["right"]) == ([2, 3, 0], [1, 2, 0])
    assert values["top1"] == pytest.approx([1 / 2, 2 / 3, None])
    evaluator.reset()
    evaluator.update(one_hot([0], 2), torch.tensor([0]), torch.tensor([39.0]))
    assert evaluator.compute().breakdown.count == (0, 0, 1)  # pyrefly: ignore[missing-attribute]


def test_the_breakdown_adds_up_to_the_whole_in_any_batches():
    torch.manual_seed(0)
    logits, targets, values = torch.randn(200, 3), torch.randint(0, 3, (200,)), 40 * torch.rand(200)
    whole, parts = (ClassificationEvaluator(list("abc"), QUANTITY) for _ in range(2))
    whole.update(logits, targets, values)
    for chunk in torch.arange(200).split(17):
        parts.update(logits[chunk], targets[chunk], values[chunk])
    assert whole.compute().breakdown == parts.compute().breakdown
    found, metrics = whole.compute().breakdown, whole.compute()
    assert found is not None
    assert sum(found.count) == metrics.count
    assert sum(found.right) / metrics.count == metrics.top1
    right = logits.argmax(1) == targets
    far = values >= 20
    assert found.top1[2] == pytest.approx(float(right[far].float().mean()))


def test_without_a_quantity_there_is_no_breakdown():
    evaluator = ClassificationEvaluator(["a", "b"])
    evaluator.update(one_hot([0], 2), torch.tensor([0]))
    assert evaluator.compute().breakdown is None
    assert not any(key.startswith("top1_by") for key in evaluator.compute().to_dict())


def test_values_that_fit_no_interval():
    evaluator = ClassificationEvaluator(["a", "b"], QUANTITY)
    for value in (-1.0, 40.0, math.nan):
        with pytest.raises(ValueError, match=r"values of the quantity reach from .* expected 0 to below 40"):
            evaluator.update(one_hot([0], 2), torch.tensor([0]), torch.tensor([value]))
    with pytest.raises(ValueError, match=r"have shape none, expected \(1,\)"):
        evaluator.update(one_hot([0], 2), torch.tensor([0]))
    with pytest.raises(ValueError, match="expected 2 or more, ascending"):
        ClassificationEvaluator(["a", "b"], ("distance", "px", (1.0, 1.0)))
