"""One uninterrupted run that several tests look at."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.training.runs import tiny


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    """Sums are split by threads, so bits are only comparable at the same number of them."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def whole_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the tiny run, uninterrupted; not to be written to."""
    from botvision.training.run import train

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    folder = train(tiny(), tmp_path_factory.mktemp("whole") / "run", progress=False)
    torch.set_num_threads(threads)
    return folder
