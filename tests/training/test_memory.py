"""The largest batch that fits, found by trials."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.fabric
import pytest
import torch

from botvision.config.recipes import load_config
from botvision.config.schema import ConfigError
from botvision.training import loop, memory, run
from tests.training.runs import tiny


def steps_up_to(limit: int, tried: list[int]) -> Callable[[int], Callable[[], object]]:
    """A trial whose second step runs out of memory beyond so many images."""

    def trial(images: int) -> Callable[[], object]:
        tried.append(images)
        left = [1]

        def step() -> None:
            left[0] -= 1
            if left[0] < 0 and images > limit:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

        return step

    return trial


@pytest.mark.parametrize("limit", [1, 2, 3, 5, 8, 17, 37, 100, 900])
def test_the_largest_batch_fits_and_leaves_little_unused(limit: int) -> None:
    tried: list[int] = []
    found = memory.largest_batch(steps_up_to(limit, tried), most=1024)
    assert max(1, 0.75 * limit - 8) <= found <= limit
    assert found < 16 or found % 8 == 0
    assert len(tried) <= 16


def test_no_more_images_than_asked_for_are_tried() -> None:
    tried: list[int] = []
    assert memory.largest_batch(steps_up_to(10_000, tried), most=42) == 40
    assert max(tried) == 42
    assert memory.largest_batch(steps_up_to(10_000, tried), most=1) == 1


def test_not_even_one_image_fits() -> None:
    assert memory.largest_batch(steps_up_to(0, []), most=64) == 0


def test_another_error_of_a_trial_is_not_taken_for_a_lack_of_memory() -> None:
    def trial(images: int) -> Callable[[], object]:
        raise RuntimeError(f"shapes of {images} images do not fit")

    with pytest.raises(RuntimeError, match="shapes of 2 images"):
        memory.largest_batch(trial, most=64)


@pytest.mark.parametrize(
    ("batch", "accumulate", "fitting", "keys"),
    [
        (64, 1, 44, "--train.batch_size 32 --train.accumulate 2 has 64 images a step"),
        (4, 2, 3, "--train.batch_size 2 --train.accumulate 4 has 8 images a step"),
        (31, 1, 16, "--train.batch_size 16 --train.accumulate 2 has about 31 images a step"),
    ],
)
def test_the_advice_has_as_many_images_a_step(batch: int, accumulate: int, fitting: int, keys: str) -> None:
    assert memory.advice(batch, accumulate, fitting) == keys


@pytest.fixture
def small_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps of more than five images run out of memory."""

    class Step:
        def __init__(self, task: Any, splits: Any) -> None:
            assert splits is not None
            self.images = task.config.train.batch

        def __call__(self) -> None:
            if self.images > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")

    monkeypatch.setattr(run, "Stepper", Step)
    monkeypatch.setattr(memory, "describe", lambda device: f"a {device.type} of 8.0 GB")


@pytest.mark.usefixtures("small_gpu")
def test_a_batch_that_does_not_fit_is_told_what_does() -> None:
    config = tiny(train__batch_size=16)  # of 100 images, so that the limit of auto is lower
    error = run._too_large(config, torch.device("cuda"), run.CountBar(shown=False))
    assert str(error) == (
        "out of memory (a cuda of 8.0 GB): 16 images do not fit, 4 do: "
        "--train.batch_size 4 --train.accumulate 8 has 32 images a step"
    )
    fits = tiny(train__batch_size=4, data__num_images=256)
    assert run._too_large(fits, torch.device("cuda"), run.CountBar(shown=False)) is None


@pytest.mark.usefixtures("small_gpu")
def test_auto_is_replaced_by_what_fits() -> None:
    config = tiny(train__batch_size="auto", data__num_images=256)
    with pytest.raises(ConfigError, match=r"train\.batch_size: auto is for training"):
        _ = config.train.batch
    bar = run.CountBar(shown=False)
    assert run._with_largest_batch(config, torch.device("cuda"), bar).train.batch_size == 4


def test_a_run_that_goes_on_keeps_the_batch_that_was_found(tmp_path: Path) -> None:
    folder = run.train(tiny(train__epochs=1), tmp_path / "run", progress=False)
    again = tiny(train__epochs=2, train__batch_size="auto")
    run.train(again, folder, resume=True, progress=False)
    assert load_config(folder / "config.yaml").train.batch_size == 8


def test_auto_on_a_cpu_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"train\.batch_size: auto needs a GPU .* cpu: expected a number"):
        run.train(tiny(train__batch_size="auto"), tmp_path / "run", progress=False)
    assert not (tmp_path / "run" / "config.yaml").exists()


@pytest.mark.parametrize("word", ["cuda:", "gpu", "cuda:-1", "cuda:x", "CUDA"])
def test_a_device_that_is_none_is_refused(word: str) -> None:
    with pytest.raises(ConfigError, match=r"train\.device: expected auto, cpu, cuda, cuda:1, \.\.\. or mps"):
        tiny(train__device=word)


@pytest.mark.parametrize(
    ("name", "accelerator", "devices"), [("cuda:1", "cuda", [1]), ("cuda", "cuda", 1), ("mps", "mps", 1)]
)
def test_a_run_takes_the_device_of_that_number(
    monkeypatch: pytest.MonkeyPatch, name: str, accelerator: str, devices: object
) -> None:
    @dataclasses.dataclass
    class Recorder:
        accelerator: str
        devices: object

        def launch(self) -> None: ...

    monkeypatch.setattr(lightning.fabric, "Fabric", Recorder)
    monkeypatch.setattr(loop, "resolve_device", torch.device)
    assert loop.open_fabric(name) == Recorder(accelerator, devices)
