"""Words of the command line to a command: what argparse reads, and the dotted keys that it does not."""

import argparse
import dataclasses
import re
import textwrap
from collections.abc import Iterable
from pathlib import Path
from typing import Any, NoReturn

import botvision
from botvision import manual

Overrides = dict[str, str]
OVERRIDE = re.compile(r"--(?P<key>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)+)(?:=(?P<value>.*))?", re.DOTALL)


class UsageError(ValueError):
    """Arguments that make no command; the message is one line."""


class _Parser(argparse.ArgumentParser):
    """argparse without abbreviations, and with one line instead of a page when an argument is wrong."""

    def __init__(self, **kwargs: Any) -> None:  # noqa: ANN401
        super().__init__(**kwargs, allow_abbrev=False, formatter_class=argparse.RawDescriptionHelpFormatter)

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message}; see {self.prog} --help")


def split_overrides(words: Iterable[str]) -> tuple[list[str], Overrides]:
    """Take ``--key.sub value`` and ``--key.sub=value`` out of the arguments, wherever they stand."""
    rest: list[str] = []
    overrides: Overrides = {}
    queue = iter(words)
    for word in queue:
        match = OVERRIDE.fullmatch(word)
        if match is None:
            rest.append(word)
            continue
        value = match["value"] if match["value"] is not None else next(queue, None)
        if value is None or (match["value"] is None and value.startswith("--")):
            raise UsageError(f"--{match['key']}: expected a value after it")
        if match["key"] in overrides:
            raise UsageError(f"--{match['key']}: given twice")
        overrides[match["key"]] = value
    return rest, overrides


def build_parser() -> _Parser:
    epilog = _examples(manual.FIRST_STEPS) + "\n\n" + manual.MORE
    parser = _Parser(prog="botvision", description=manual.PROGRAM, epilog=epilog)
    parser.add_argument("--version", action="version", version=f"botvision {botvision.__version__}")
    verbs = parser.add_subparsers(dest="command", metavar="COMMAND", title="commands")
    for name in manual.SUMMARIES:
        summary, epilog = manual.SUMMARIES[name], _examples(manual.EXAMPLES[name])
        verb = verbs.add_parser(name, help=summary, description=f"{name}: {summary}.", epilog=epilog)
        for flag, options in manual.ARGUMENTS.get(name, {}).items():
            verb.add_argument(flag, help=manual.HELP[f"{name} {flag}"], **options)
        if name in manual.KEYS:
            # For the help page alone: split_overrides takes these out before argparse sees them.
            flag, text = manual.KEYS[name]
            verb.add_argument_group("configuration keys").add_argument(flag, metavar="VALUE", help=text)
    return parser


def means_results(args: argparse.Namespace, overrides: Overrides) -> bool:
    """Say whether ``eval`` is given a file of COCO results and not a run.

    Raises:
        UsageError: Arguments of the one beside those of the other.
    """
    results = Path(args.run).is_file()
    own = {"--split": args.split, **{f"--{key}": True for key in overrides}}
    others = {"--truth": args.truth, "--max-detections": args.max_detections, "--out": args.out}
    wrong = next((flag for flag, given in (own if results else others).items() if given), None)
    if wrong is not None:
        kinds = ("a run folder", "a file of COCO results")
        raise UsageError(f"{wrong}: goes with {kinds[not results]}, and {args.run} is {kinds[results]}")
    if results and args.truth is None:
        raise UsageError(f"{args.run}: COCO results need their ground truth: --truth INSTANCES.json")
    return results


def dotted_hint(word: str, command: str | None) -> str:
    """For ``--epochs``, written without its section, name the key that was meant."""
    if command != "train":
        return ""
    from botvision.training.settings import CONFIGS

    name = word.removeprefix("--").split("=")[0]
    for section in (field for config in CONFIGS.values() for field in dataclasses.fields(config)):
        if dataclasses.is_dataclass(section.type) and name in {
            f.name for f in dataclasses.fields(section.type)
        }:
            return f"; did you mean --{section.name}.{name}?"
    return ""


def _examples(text: str) -> str:
    return "examples:\n" + textwrap.indent(text.strip(), "  ")
