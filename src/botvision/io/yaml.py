"""YAML as untrusted input: aliases that multiply or refer to themselves, and depth, are errors."""

from pathlib import Path
from typing import Any

import yaml

from botvision.io.read import read_text

LARGEST_FILE = 1024**2  # bytes; PyYAML reads some 100 kB a second
MOST_VALUES = 100_000  # aliases written out


class _Loader(yaml.SafeLoader):
    """A key given twice is an error, as in YAML's own rules, and not a silent choice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        seen: set[str] = set()
        for key, _ in node.value:
            line = f"line {key.start_mark.line + 1}"
            if not isinstance(key, yaml.ScalarNode):
                raise ValueError(f"{line}: expected a name as key, got a list or mapping")
            if key.value in seen:
                raise ValueError(f"{line}: key {key.value!r} is given twice")
            seen.add(key.value)
        return super().construct_mapping(node, deep)


def parse_yaml(text: str) -> Any:  # noqa: ANN401
    """Return what a text says. Raises ValueError, one line: no YAML, or too much of it once written out."""
    loader = None
    try:
        loader = _Loader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        if _values(node, {}) > MOST_VALUES:
            raise ValueError(f"more than {MOST_VALUES:,} values, aliases written out")
        return loader.construct_document(node)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except (yaml.YAMLError, ValueError, OverflowError, TypeError) as error:
        raise ValueError(" ".join(str(error).split())) from None
    finally:
        if loader is not None:
            loader.dispose()


def read_yaml(path: str | Path) -> dict[str, Any]:
    """Return the mapping of a YAML file.

    Raises:
        OSError: the file cannot be read.
        ValueError: whatever is wrong with it, one line with its name.
    """
    text = read_text(path, LARGEST_FILE)
    try:
        values = parse_yaml(text)
    except ValueError as error:
        raise ValueError(f"{path}: cannot be read as YAML: {error}") from None
    if not isinstance(values, dict):
        found = "nothing" if values is None else type(values).__name__
        raise ValueError(f"{path}: expected a mapping of keys to values, got {found}")
    return values


def _values(node: yaml.Node, known: dict[int, int]) -> int:
    """Values of a node with all aliases written out. Raises ValueError for one that lies in itself."""
    if id(node) not in known:
        known[id(node)] = 0
        pairs = node.value if isinstance(node, yaml.MappingNode) else []
        parts = [part for pair in pairs for part in pair]
        parts += node.value if isinstance(node, yaml.SequenceNode) else []
        known[id(node)] = 1 + sum(_values(part, known) for part in parts)
    if known[id(node)] == 0:
        raise ValueError(f"line {node.start_mark.line + 1}: an alias that refers to itself")
    return known[id(node)]
