"""What wakes attention that is trained from nothing: its start, its learning rate, its place, its time.

    python benchmarks/attention_start.py                            # 1.5 hours on one core; goes on
    python benchmarks/attention_start.py --smoke --out results/try  # a few steps each

The recipe `pointing_botnet_s1_14_nano`, which no average over the picture solves, with attention that begins
as in the paper and one thing changed at a time. For each: how many steps until the network has learned
anything (a mean of 125 steps over 35 %, where guessing is 25 %), its accuracy on other pictures, and what is
left of that without its attention. Finished runs stay in OUT/attention_start_runs.jsonl and are not run
again; --report makes the table of those that are there.
"""

import json
import statistics
from argparse import ArgumentParser
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from botvision.attention import MHSA2d
from botvision.attention.ablation import ablated
from botvision.backbones.dense import logits_at
from botvision.backbones.models import create_model
from botvision.config.data import DataConfig
from botvision.config.recipes import build_config, load_recipe
from botvision.config.run import AnyRunConfig
from botvision.data.classification import ClassificationDataset, open_splits
from botvision.data.synthetic.pointing import PointingSource
from botvision.training.optim import Schedule, parameter_groups
from harness import Row, arguments, environment, progress, write

HEAD = """\
# What wakes attention that is trained from nothing

The pointing task (chance: 25 %), BoTNet-S1-14 nano, relative positions, {steps} steps of {batch} pictures,
learning rate {lr:g} with warm-up and cosine. Queries, keys and values begin as in the paper's code, with
standard deviation C^-0.5, and one thing is changed at a time. "left the plateau": the first step after which
a mean over 125 steps of training accuracy was above 35 %, by seed (- never). Accuracy in percent on other
pictures, mean and sample standard deviation over seeds, then the same networks with even weights and with
the attention's output set to zero.
"""

PLATEAU = 0.35
WINDOW = 125  # steps
MADE = ("commit", "hardware", "threads", "torch", "date")  # what each run says of where it was made


@dataclass(frozen=True)
class Setting:
    """One way to train.

    Attributes:
        model: arguments of the model.
        started: changes the network before the first step.
        lr: times the recipe's learning rate.
        attention_lr: times the learning rate, for projections and tables of attention alone.
        attention_decay: times the weight decay of the projections of attention.
        steps: times the number of steps.
    """

    model: Mapping[str, object] = field(default_factory=dict)
    started: Callable[[nn.Module], None] = lambda network: None
    lr: float = 1.0
    attention_lr: float = 1.0
    attention_decay: float = 1.0
    steps: int = 1


def scaled(query: float = 1.0, key: float = 1.0, value: float = 1.0, tables: float = 1.0) -> Callable:
    """Attention whose initial projections and tables are multiplied."""

    @torch.no_grad()
    def change(network: nn.Module) -> None:
        for layer in network.modules():
            if isinstance(layer, MHSA2d):
                for part, factor in zip(layer.qkv.weight.chunk(3), (query, key, value), strict=True):
                    part.mul_(factor)
                if layer.position is not None:
                    for table in layer.position.parameters():
                        table.mul_(tables)

    return change


SETTINGS: dict[str, Setting] = {
    "as in the paper": Setting(),
    "keys x 0": Setting(started=scaled(key=0.0)),
    "keys x 0.1": Setting(started=scaled(key=0.1)),
    "queries x 3": Setting(started=scaled(query=3.0)),
    "tables x 3": Setting(started=scaled(tables=3.0)),
    "last norm one": Setting(model={"zero_init_last": False}),
    "learning rate x 0.3": Setting(lr=1 / 3),
    "attention's learning rate x 0.3": Setting(attention_lr=1 / 3),
    "attention's learning rate x 3": Setting(attention_lr=3.0),
    "no weight decay in attention": Setting(attention_decay=0.0),
    "attention in c4 too": Setting(model={"c4_blocks": [1]}),
    "twice as long": Setting(steps=2),
    "keys x 0, last norm one": Setting(model={"zero_init_last": False}, started=scaled(key=0.0)),
}


@dataclass(frozen=True)
class Pictures:
    """A split: images (N, 3, H, W), kinds (N, 3) of the marks pointed to, places (N, 3, 2) of the arrows."""

    images: Tensor
    labels: Tensor
    points: Tensor

    def answers(self, network: nn.Module, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Logits (B, 3, 4) and labels (B, 3) of some pictures."""
        images = self.images[rows].contiguous(memory_format=torch.channels_last)
        return logits_at(network, images, self.points[rows]), self.labels[rows]


@dataclass(frozen=True)
class Task:
    """The recipe, its pictures, and how long it is trained."""

    config: AnyRunConfig
    train: Pictures
    val: Pictures
    steps: int


def groups(network: nn.Module, setting: Setting, decay: float) -> list[dict[str, Any]]:
    """The groups of a run, those of attention apart, each with `peak`: times the learning rate."""
    attention = {id(p) for m in network.modules() if isinstance(m, MHSA2d) for p in m.parameters()}
    found = []
    for group in parameter_groups(network, decay):
        ours = [p for p in group["params"] if id(p) in attention]
        theirs = [p for p in group["params"] if id(p) not in attention]
        own = group["weight_decay"] * setting.attention_decay
        found += [{"params": ours, "peak": setting.attention_lr, "weight_decay": own}] if ours else []
        found += [{**group, "params": theirs, "peak": 1.0}] if theirs else []
    return found


def train(task: Task, setting: Setting, seed: int) -> dict[str, object]:
    """One run: a plain loop, so that anything can be changed."""
    config, batch = task.config, task.config.train.batch
    torch.manual_seed(seed)
    # keys of the paper's size: what begins with smaller ones says so in its name
    args = {"key_init": 1.0} | dict(config.model.args) | dict(setting.model)
    network = create_model(config.model.name, num_classes=4, img_size=task.config.data.size, **args)
    setting.started(network)
    steps = task.steps * setting.steps
    warmup = round(config.optim.warmup_epochs * (len(task.train.images) // batch))
    schedule = Schedule(config.optim.lr * setting.lr, steps, min(warmup, steps))
    held = groups(network, setting, config.optim.weight_decay)
    optimizer = torch.optim.AdamW(held, lr=1.0, betas=config.optim.betas, eps=config.optim.eps)
    order = torch.Generator().manual_seed(seed)
    right: list[float] = []
    rows = torch.empty(0, dtype=torch.long)
    network.to(memory_format=torch.channels_last).train()
    for step in range(steps):
        if len(rows) < batch:
            rows = torch.randperm(len(task.train.images), generator=order)
        chosen, rows = rows[:batch], rows[batch:]
        logits, labels = task.train.answers(network, chosen)
        for group in optimizer.param_groups:
            group["lr"] = group["peak"] * schedule(step)
        optimizer.zero_grad()
        F.cross_entropy(logits.flatten(0, 1), labels.flatten()).backward()
        optimizer.step()
        right.append(float((logits.argmax(2) == labels).float().mean()))
    left = next(
        (n for n in range(WINDOW, steps + 1) if statistics.fmean(right[n - WINDOW : n]) > PLATEAU), None
    )
    found: dict[str, object] = {"left": left, "accuracy": accuracy(network, task.val)}
    for how in ("even", "zero"):
        with ablated(network, how):
            found[how] = accuracy(network, task.val)
    return found


@torch.inference_mode()
def accuracy(network: nn.Module, data: Pictures) -> float:
    """In percent, over all arrows."""
    network.eval()
    right = []
    for rows in torch.arange(len(data.images)).split(100):
        logits, labels = data.answers(network, rows)
        right.append(logits.argmax(2) == labels)
    return 100 * float(torch.cat(right).float().mean())


def recipe(smoke: bool) -> AnyRunConfig:
    fewer = {"data.num_images": 64, "data.num_val_images": 32} if smoke else {}
    return build_config(load_recipe("pointing_botnet_s1_14_nano"), fewer)


def steps_of(smoke: bool) -> int:
    return 4 if smoke else 1000


def opened(smoke: bool) -> Task:
    config = recipe(smoke)
    assert isinstance(config.data, DataConfig)
    splits = open_splits(config.data)
    return Task(config, pictures(splits.train), pictures(splits.val), steps_of(smoke))


def pictures(data: ClassificationDataset) -> Pictures:
    source = data.source
    assert isinstance(source, PointingSource)
    parts = [list(range(len(data)))[start : start + 64] for start in range(0, len(data), 64)]
    images = torch.cat([data.__getitems__(part)[0] for part in progress(parts, f"images of {data.name}")])
    return Pictures(images, data.targets, source.points().float())


def summary(name: str, runs: list[Mapping[str, Any]]) -> Row:
    """A row of the table."""
    row: dict[str, object] = {"setting": name, "seeds": len(runs)}
    row["left the plateau"] = ", ".join("-" if run["left"] is None else str(run["left"]) for run in runs)
    for key in ("accuracy", "even", "zero"):
        values = [run[key] for run in runs]
        row[key] = f"{statistics.fmean(values):.1f}"
        if key == "accuracy" and len(values) > 1:
            row[key] = f"{row[key]} ± {statistics.stdev(values):.1f}"
    return row


def main() -> None:
    parser: ArgumentParser = arguments(__doc__ or "")
    parser.add_argument("--seeds", type=int, default=3, help="runs of each setting (default: %(default)s)")
    parser.add_argument("--report", action="store_true", help="the table of finished runs; run nothing")
    args = parser.parse_args()
    log: Path = args.out / "attention_start_runs.jsonl"
    done = [json.loads(line) for line in log.read_text().splitlines()] if log.exists() else []
    made = environment("cpu")
    names = list(SETTINGS)[:3] if args.smoke else list(SETTINGS)
    task = None
    for seed, name in progress([(s, n) for s in range(args.seeds) for n in names], "runs"):
        if not args.report and not any(run["setting"] == name and run["seed"] == seed for run in done):
            task = task or opened(args.smoke)
            run = {
                "setting": name,
                "seed": seed,
                **train(task, SETTINGS[name], seed),
                **{key: made[key] for key in MADE},
            }
            done.append(run)
            args.out.mkdir(parents=True, exist_ok=True)
            with log.open("a") as file:
                file.write(json.dumps(run) + "\n")
    found = {name: [run for run in done if run["setting"] == name] for name in names}
    config = recipe(args.smoke)
    head = HEAD.format(steps=steps_of(args.smoke), batch=config.train.batch, lr=config.optim.lr)
    if not done:
        parser.error(f"{log}: no finished runs to report on")
    made |= {key: ", ".join(sorted({run[key] for run in done})) for key in MADE}  # the runs, not this table
    rows = [summary(name, runs) for name, runs in found.items() if runs]
    write("attention_start", rows, head, args.out, {"dtype": "fp32", **made})
    print(f"written: {args.out}/attention_start.md, {len(done)} of {args.seeds * len(names)} runs")


if __name__ == "__main__":
    main()
