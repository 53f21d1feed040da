"""Words of the command line to a command: what argparse reads, and the dotted keys that it does not."""

import argparse
import dataclasses
import re
import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, NoReturn

import botvision
from botvision.cli import manual

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
    return _join_values(rest), overrides


def _join_values(words: Sequence[str]) -> list[str]:
    """Join ``--at -1,5``, which argparse takes for two options, into ``--at=-1,5``, which it reads.

    Raises:
        UsageError: A pixel of ``--at`` that is written as two words.
    """
    joined: list[str] = []
    for i, word in enumerate(words):
        apart = re.fullmatch(r"--at (-?\d+),? (-?\d+)", " ".join(words[i : i + 3]))
        if apart:
            meant = f"--at {apart[1]},{apart[2]}"
            raise UsageError(f"--at: expected a pixel y,x in one word, got two; did you mean {meant}?")
        if joined and re.fullmatch(r"--[a-z-]+", joined[-1]) and re.match(r"-[\d.,]", word):
            joined[-1] += f"={word}"
        else:
            joined.append(word)
    return joined


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
    own = {"--split": args.split, "--attention": args.attention, "--block": args.block}
    own |= {f"--{key}": "given" for key in overrides}
    others = {"--truth": args.truth, "--max-detections": args.max_detections, "--out": args.out}
    wrong = next((flag for flag, given in (own if results else others).items() if given), None)
    if wrong is not None:
        kinds = ("a run folder", "a file of COCO results")
        raise UsageError(f"{wrong}: goes with {kinds[not results]}, and {args.run} is {kinds[results]}")
    if args.block is not None and args.attention in (None, "all"):
        raise UsageError("--block: goes with one way to replace attention, such as --attention zero")
    if results and args.truth is None:
        raise UsageError(f"{args.run}: COCO results need their ground truth: --truth INSTANCES.json")
    return results


def check_study(args: argparse.Namespace, overrides: Overrides) -> None:
    """Refuse arguments of ``study`` that say how to run one, where none is named. Raises UsageError."""
    options = {flag: o for flag, o in manual.ARGUMENTS["study"].items() if flag.startswith("--")}
    values = {flag: getattr(args, flag.removeprefix("--").replace("-", "_")) for flag in options}
    given = [f"--{key}" for key in overrides]
    given += [flag for flag, value in values.items() if value not in (False, options[flag].get("default"))]
    if given and args.study is None:
        raise UsageError(f"STUDY is missing, {given[0]} goes with one; botvision study lists them")
    for flag in ("--dry-run", "--reuse", "--jobs"):
        if args.report_only and flag in given:
            raise UsageError(f"--report-only runs nothing, {flag} does not go with it")
    if args.no_photos and args.no_pictures:
        raise UsageError("--no-photos does not go with --no-pictures, which leaves all pictures out")


def dotted_hint(word: str, command: str | None) -> str:
    """For ``--epochs``, written without its section, name the key that was meant."""
    if command != "train":
        return ""
    from botvision.config.run import CONFIGS

    name = word.removeprefix("--").split("=")[0]
    for section in (field for config in CONFIGS.values() for field in dataclasses.fields(config)):
        if dataclasses.is_dataclass(section.type) and name in {
            f.name for f in dataclasses.fields(section.type)
        }:
            return f"; did you mean --{section.name}.{name}?"
    return ""


def _examples(text: str) -> str:
    return "examples:\n" + textwrap.indent(text.strip(), "  ")
