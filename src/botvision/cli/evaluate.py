"""The command `eval`: a run, with its attention or without, or a file of COCO results."""

import argparse
import shlex
from collections.abc import Mapping
from pathlib import Path

from botvision.cli.output import warn
from botvision.io.errors import DataError
from botvision.io.files import write_json
from botvision.tables import evaluation as tables


def evaluate_run(args: argparse.Namespace, overrides: Mapping[str, str]) -> None:
    """Evaluate the weights of a run folder; ValueError on what is wrong with arguments, run or data."""
    from botvision.attention.ablation import Replaced
    from botvision.io.progress import CountBar
    from botvision.training.attention_use import evaluate_replaced, measure_use, use_file
    from botvision.training.classify import breakdown_file
    from botvision.training.evaluation import Evaluation

    of, run = Evaluation(args.run, args.split or "val", overrides), shlex.quote(args.run)
    if args.attention == "all":
        if not of.finished:
            raise ValueError(
                f"{args.run}: the run is not finished; resume it first, or leave out --attention all"
            )
        with CountBar() as bar:
            use = measure_use(of, bar)
        for note in of.notes:
            warn(f"note: {note}")
        print(f"{tables.attention_table(use)}\n\n{use.sentence()}")
        print(f"\nwritten: {use_file(of)}\nnext: botvision attend {run} IMAGE")
        return
    replaced = None if args.attention is None else Replaced(args.attention, args.block)
    use = None
    with CountBar() as bar:
        if replaced is None:
            metrics = of.measure(bar)
        else:
            metrics, use = evaluate_replaced(of, replaced, bar)
    for note in of.notes:
        warn(f"note: {note}")
    print(tables.metrics_tables(metrics))
    if use is not None:
        print(f"\n{tables.attention_line(use)}")
    written = [*of.files(replaced)]
    if getattr(metrics, "breakdown", None) is not None:
        written.append(breakdown_file(written[1], metrics.breakdown.name))
    if of.task.config.task == "detect":
        from botvision.training.detect import sheet_file

        written.append(sheet_file(written[0]))
    then = f"compare {run} OTHER_RUN" if replaced is None else f"eval {run} --attention all"
    print(f"\nwritten: {', '.join(map(str, written))}\nnext: botvision {then}")


def evaluate_results(args: argparse.Namespace) -> None:
    """Evaluate boxes, masks, or both, whatever a file of COCO results carries; else as `evaluate_run`."""
    from botvision.cli.output import warn
    from botvision.coco.evaluate import evaluate_coco
    from botvision.coco.results import doubts, kinds_in, of_other_categories, read_results, refuse_others
    from botvision.coco.truth import read_truth
    from botvision.plots.curves import precision_recall

    records, name = read_results(args.run)
    truth = read_truth(args.truth)
    kinds = kinds_in(records, truth)
    if not kinds:
        raise ValueError(f"{name}: results with neither bbox nor segmentation")
    if not len(truth.crowd) or truth.crowd.all():
        held = f"{len(truth.images)} images and no objects" + (" but crowds" if len(truth.crowd) else "")
        raise ValueError(f"{args.truth}: {held}: there is nothing to measure")
    refuse_others(records, truth, name, args.truth)
    others = of_other_categories(records, truth)
    if others:
        warn(f"{name}: {others} results of categories that {args.truth} does not list are left out")
    metrics, unmeasured = [], []
    for kind in kinds:
        try:
            metrics.append(evaluate_coco(truth, records, kind, args.max_detections or 100, name=name))
        except DataError as error:
            if not metrics:
                raise
            unmeasured.append(f"masks are not evaluated: {error}")
    for line in (*truth.notes, *doubts(records, truth, name), *unmeasured):
        warn(line)
    print(tables.coco_tables(metrics))
    results, out = Path(args.run), Path(args.out or Path(args.run).parent)
    numbers, picture = out / f"{results.stem}-eval.json", out / f"{results.stem}-pr.png"
    values = {"results": args.run, "truth": args.truth, **{found.kind: found.to_dict() for found in metrics}}
    try:
        write_json(numbers, values)
        precision_recall(metrics, picture)
    except OSError as error:
        raise ValueError(f"{out}: {error.strerror}; name another folder with --out") from None
    print(f"\nwritten: {numbers}, {picture}")
