"""The command ``eval``: a run, with its attention or without, or a file of COCO results."""

import argparse
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path

from botvision.tables import evaluation as report_evaluation

Say = Callable[[str], object]


def evaluate_run(args: argparse.Namespace, overrides: Mapping[str, str], say: Say) -> int:
    """Evaluate the weights of a run folder.

    Args:
        args: of the command.
        overrides: dotted keys and their values.
        say: prints lines of output.

    Returns:
        The exit code.

    Raises:
        ValueError: one line on what is wrong with the arguments, the run or its data.
    """
    if args.attention == "all":
        return _measure_attention(args, overrides, say)
    from botvision.attention.ablation import Replaced
    from botvision.io.progress import CountBar
    from botvision.training.attention_use import Images, evaluate_replaced
    from botvision.training.results import breakdown_file, evaluate, evaluation_files

    folder, split = Path(args.run), args.split or "val"
    replaced = None if args.attention is None else Replaced(args.attention, args.block)
    use = None
    with CountBar() as bar:
        if replaced is None:
            metrics = evaluate(folder, split, overrides, bar)
        else:
            metrics, use = evaluate_replaced(Images(folder, split, overrides), replaced, bar)
    say(report_evaluation.metrics_tables(metrics))
    if use is not None:
        say(f"\n{report_evaluation.attention_line(use)}")
    written = [*evaluation_files(folder, split, overrides, replaced)]
    if getattr(metrics, "breakdown", None) is not None:
        written.append(breakdown_file(written[1], metrics.breakdown.name))
    say(f"\nwritten: {', '.join(map(str, written))}")
    run = shlex.quote(args.run)
    if replaced is None:
        say(f"next: botvision compare {run} OTHER_RUN")
    else:
        say(f"next: botvision eval {run} --attention all")
    return 0


def _measure_attention(args: argparse.Namespace, overrides: Mapping[str, str], say: Say) -> int:
    from botvision.io.progress import CountBar
    from botvision.training.attention_use import Images, measure_use

    with CountBar() as bar:
        use, path = measure_use(Images(Path(args.run), args.split or "val", overrides), bar)
    say(report_evaluation.attention_table(use))
    say(f"\n{use.sentence()}")
    say(f"\nwritten: {path}")
    say(f"next: botvision attend {shlex.quote(args.run)} IMAGE")
    return 0


def evaluate_results(args: argparse.Namespace, say: Say) -> int:
    """Evaluate a file of COCO results against its ground truth; arguments and errors as above."""
    from botvision.cli.score import score, write_scores

    metrics = score(args.run, args.truth, args.max_detections or 100)
    say(report_evaluation.coco_tables(metrics))
    written = write_scores(metrics, args.run, args.truth, Path(args.out or Path(args.run).parent))
    say(f"\nwritten: {written[0]}, {written[1]}")
    return 0
