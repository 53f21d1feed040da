"""The loop in two processes, as a launcher will start them; the command still refuses several."""

import subprocess
import sys
from pathlib import Path

import torch

from botvision.training.log import read_rows
from tests.training.runs import differences

ROOT = Path(__file__).parents[2]

TWO = """
import sys
from pathlib import Path
import torch
from lightning.fabric import Fabric
from botvision.io.progress import CountBar
from botvision.training.checkpoint import RunState
from botvision.training.loop import assemble, fit
from botvision.training.run import task_of
from tests.training.runs import tiny

def work(fabric):
    torch.set_num_threads(1)
    for name, decay in (("averaged", 0.9), ("plain", 0.0)):
        task = task_of(tiny(train__epochs=1, train__ema_decay=decay))
        splits = task.open()
        torch.manual_seed(3)
        job = assemble(task, fabric, splits, task.build(splits).train())
        fit(folder / name, job, RunState(), CountBar(shown=False))
        found = {"evaluated": job.evaluated.state_dict(), "trained": dict(job.model.named_parameters())}
        torch.save(found, folder / name / f"{fabric.global_rank}.pt")

folder = Path(sys.argv[1])
fabric = Fabric(accelerator="cpu", devices=2, strategy="ddp_fork")
fabric.launch(work)
"""


def test_two_processes_learn_the_same_weights_from_half_of_the_images_each(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, "-c", TWO, str(tmp_path)], cwd=ROOT, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    for folder in (tmp_path / "averaged", tmp_path / "plain"):
        one, two = (torch.load(folder / f"{rank}.pt", weights_only=True) for rank in (0, 1))
        assert differences(one, two) == []
        kept = torch.load(folder / "checkpoints" / "last.ckpt", weights_only=True)
        assert differences(kept["evaluated"], two["evaluated"]) == []
        assert len(read_rows(folder / "steps.csv")) == 3  # 100 images, 8 x 2 a step in each
        assert len(read_rows(folder / "metrics.csv")) == 1
