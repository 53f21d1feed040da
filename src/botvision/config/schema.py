"""Mappings to dataclasses, strictly: the type hints are the rules, and what they do not allow is an error."""

import dataclasses
import difflib
import math
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal

import yaml


class ConfigError(ValueError):
    """A recipe or an override is wrong; the message is one line that names the key and what was expected."""


class Text(str):
    """A string from a command line: to be read as a number, list, ... where the key asks for one."""


PLURALS = {int: "whole numbers", float: "numbers", str: "names"}


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Raises ConfigError "key: expected ..., got ..." unless the condition holds."""
    if not holds:
        raise ConfigError(f"{key}: expected {expected}, got {value!r}")


def nearest(key: str, known: list[str]) -> str:
    """Returns the end of an error line: the known key nearest to the wrong one, or all of them."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def build(cls: type[Any], values: object, prefix: str) -> Any:  # noqa: ANN401
    """Returns an instance of the dataclass.

    Args:
        cls: a dataclass; its fields may be dataclasses themselves.
        values: mapping of field name to value, nested like the dataclasses.
        prefix: dotted key of this mapping with a trailing dot, "" at the root.

    Raises:
        ConfigError: unknown or missing key, wrong type, or a value that the dataclass refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(
            f"{prefix.rstrip('.') or 'recipe'}: expected a mapping of keys to values, got {values!r}"
        )
    hints = typing.get_type_hints(cls)
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            known = [f"{prefix}{name}" for name in fields]
            raise ConfigError(f"unknown key {prefix}{key}{nearest(f'{prefix}{key}', known)}")
    for name, field in fields.items():
        has_default = (
            field.default is not dataclasses.MISSING or field.default_factory is not dataclasses.MISSING
        )
        if name not in values and not has_default:
            raise ConfigError(f"{prefix}{name}: missing, and it has no default")
    converted = {key: _convert(value, hints[key], f"{prefix}{key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(prefix) else f"{prefix}{text}") from None


def _convert(value: object, hint: Any, key: str) -> Any:  # noqa: ANN401 - the hint says which type comes back
    options = typing.get_args(hint) if typing.get_origin(hint) in (typing.Union, types.UnionType) else (hint,)
    if isinstance(value, Text):
        if str in options and str(value) not in ("null", "none", "None"):
            return str(value)
        value = str(value) if _is_word(str(value), options) else parse_value(value, key)
        value = None if value in ("none", "None") and type(None) in options else value
    for option in options:
        if dataclasses.is_dataclass(option) and isinstance(option, type):
            return build(option, value, f"{key}.")
        matched, result = _match(value, option, key)
        if matched:
            return result
    raise ConfigError(f"{key}: expected {_describe(options)}, got {value!r}")


def _number(value: object) -> float | None:
    """A finite number, or None; YAML 1.1 reads 1e-3 as text, everybody else as a number."""
    if isinstance(value, bool) or not isinstance(value, int | float | str):
        return None
    try:
        number = float(value)
    except ValueError:
        return None
    written = not isinstance(value, str) or "e" in value.lower()
    return number if written and math.isfinite(number) else None


def parse_value(text: str, key: str) -> Any:  # noqa: ANN401
    """Returns what a text says as YAML. Raises ConfigError, naming the key, where it is none."""
    try:
        return yaml.safe_load(str(text))
    except yaml.YAMLError:
        raise ConfigError(f"{key}: cannot be read: {str(text)!r}") from None


def _is_word(text: str, options: tuple[Any, ...]) -> bool:
    return any(typing.get_origin(option) is Literal and text in typing.get_args(option) for option in options)


def _match(value: object, option: Any, key: str) -> tuple[bool, Any]:  # noqa: ANN401
    """Returns whether the value is of the type, and the value as that type."""
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if option is Any:
        return True, value
    if option is types.NoneType:
        return value is None, None
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in arguments), value
    if option is float:
        number = _number(value)
        return number is not None, number
    if origin in (tuple, list) and isinstance(value, list | tuple):
        repeated = origin is list or (len(arguments) == 2 and arguments[1] is Ellipsis)
        inner = [arguments[0]] * len(value) if repeated else list(arguments)
        if len(inner) != len(value):
            return False, None
        return True, origin(
            _convert(item, kind, f"{key}[{i}]")
            for i, (item, kind) in enumerate(zip(value, inner, strict=True))
        )
    if origin is dict:
        return isinstance(value, Mapping), _items(value, arguments[1], key)
    if origin is None and isinstance(option, type):
        return isinstance(value, option) and not (option is int and isinstance(value, bool)), value
    return False, None


def _items(value: object, kind: Any, key: str) -> Any:  # noqa: ANN401
    """The mapping with names as keys and values of a kind; what is no mapping comes back as it is."""
    if not isinstance(value, Mapping):
        return value
    for name in value:
        if not isinstance(name, str):
            raise ConfigError(f"{key}: expected names as keys, got {name!r}; put it in quotes")
    if kind is Any:
        return _untext(value, key)
    return {name: _convert(item, kind, f"{key}.{name}") for name, item in value.items()}


def _untext(value: object, key: str) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {name: _untext(item, f"{key}.{name}") for name, item in value.items()}
    return parse_value(value, key) if isinstance(value, Text) else value


def _describe(options: tuple[Any, ...]) -> str:
    return " or ".join(_named(option) for option in options)


def _named(option: Any) -> str:  # noqa: ANN401
    origin, arguments = typing.get_origin(option), typing.get_args(option)
    if origin is Literal:
        return "one of " + ", ".join(str(choice) for choice in arguments)
    if origin is dict:
        return "a mapping of names to values"
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"a list of {PLURALS.get(arguments[0], 'values')}"
    if arguments:
        return str(option)
    return "null" if option is types.NoneType else str(getattr(option, "__name__", option))
