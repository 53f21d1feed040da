"""Mappings to dataclasses, strictly: what type hints and the rules beside them do not allow is an error.

It imports no torch, and no YAML before a text has to be read: a detector made in Python keeps the same rules.
"""

import contextlib
import dataclasses
import difflib
import functools
import math
import types
import typing
from collections.abc import Callable, Mapping
from typing import Annotated, Any, ClassVar, Literal, NamedTuple, get_args, get_origin

PLURALS = {int: "whole numbers", float: "numbers", str: "names"}
UNIONS = (typing.Union, types.UnionType)
NO_MATCH = object()


class ConfigError(ValueError):
    """A recipe or an override is wrong; the message is one line that names the key and what was expected."""


class Text(str):
    """A string from a command line: to be read as a number, list, ... where the key asks for one."""


class Rule(NamedTuple):
    """What a value must fulfil beside its type; stands in `Annotated`."""

    expected: str
    holds: Callable[[Any], bool]


Positive = Annotated[int, Rule("a number above 0", lambda n: n > 0)]
Count = Annotated[int, Rule("0 or more", lambda n: n >= 0)]
Rate = Annotated[float, Rule("a number above 0", lambda x: x > 0)]
Weight = Annotated[float, Rule("0 or more", lambda x: x >= 0)]
Fraction = Annotated[float, Rule("at least 0 and below 1", lambda x: 0 <= x < 1)]
Probability = Annotated[float, Rule("0..1", lambda x: 0 <= x <= 1)]
Share = Annotated[float, Rule("above 0 and at most 1", lambda x: 0 < x <= 1)]


@dataclasses.dataclass(frozen=True)
class Section:
    """A part of a run's configuration: its values keep types and rules, however it is made."""

    dotted: ClassVar[str]  # its key in a recipe

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            key, hint = f"{self.dotted}.{field.name}", _hints(type(self))[field.name]
            object.__setattr__(self, field.name, _convert(getattr(self, field.name), hint, key))


def require(holds: bool, key: str, value: object, expected: str) -> None:
    """Raise ConfigError "key: expected ..., got ..." unless the condition holds."""
    if not holds:
        raise ConfigError(f"{key}: expected {expected}, got {value!r}")


def nearest(key: str, known: list[str]) -> str:
    """Return the end of an error line: the known key nearest to the wrong one, or all of them."""
    close = difflib.get_close_matches(key, known, n=1)
    return f"; did you mean {close[0]!r}?" if close else f"; known: {', '.join(known)}"


def parse_value(text: str, key: str) -> Any:  # noqa: ANN401
    """Return what a text says as YAML. Raises ConfigError, naming the key, where it is none."""
    from botvision.io.yaml import parse_yaml

    try:
        return parse_yaml(str(text))
    except ValueError:
        raise ConfigError(f"{key}: cannot be read: {str(text)!r}") from None


def build(cls: type[Any], values: object, prefix: str) -> Any:  # noqa: ANN401
    """Return an instance of a dataclass.

    Args:
        cls: a dataclass; its fields may be dataclasses themselves.
        values: mapping of field name to value, nested like the dataclasses.
        prefix: dotted key of this mapping with a trailing dot, "" at the root.

    Raises:
        ConfigError: unknown or missing key, wrong type, or a value that the dataclass refuses.
    """
    if not isinstance(values, Mapping):
        raise ConfigError(f"{prefix[:-1] or 'recipe'}: expected a mapping of keys to values, got {values!r}")
    fields = {field.name: field for field in dataclasses.fields(cls)}
    for key in values:
        if key not in fields:
            known = [f"{prefix}{name}" for name in fields]
            raise ConfigError(f"unknown key {prefix}{key}{nearest(f'{prefix}{key}', known)}")
    for name, field in fields.items():
        if name not in values and field.default is field.default_factory is dataclasses.MISSING:
            raise ConfigError(f"{prefix}{name}: missing, and it has no default")
    converted = {key: _convert(value, _hints(cls)[key], f"{prefix}{key}") for key, value in values.items()}
    try:
        return cls(**converted)
    except ValueError as error:
        text = str(error)
        raise ConfigError(text if text.startswith(prefix) else f"{prefix}{text}") from None


@functools.cache
def _hints(cls: type[Any]) -> dict[str, Any]:
    return typing.get_type_hints(cls, include_extras=True)


def _convert(value: object, hint: Any, key: str) -> Any:  # noqa: ANN401
    """Return the value as the type of the hint. Raises ConfigError."""
    options = _options(hint)
    if isinstance(value, Text):
        value = _read(value, options, key)
    result = _match(value, hint, key)
    if result is NO_MATCH:
        raise ConfigError(f"{key}: expected {' or '.join(map(_named, options))}, got {value!r}")
    return result


def _options(hint: Any) -> list[Any]:  # noqa: ANN401
    """The types that a hint allows, without their rules."""
    if get_origin(hint) is Annotated:
        return _options(hint.__origin__)
    if get_origin(hint) in UNIONS:
        return [option for part in get_args(hint) for option in _options(part)]
    return [hint]


def _read(text: Text, options: list[Any], key: str) -> Any:  # noqa: ANN401
    """What a text means where one of these types is asked for."""
    none = str(text) in ("null", "none", "None")
    words = [word for option in options if get_origin(option) is Literal for word in get_args(option)]
    if str(text) in words or (str in options and not none):
        return str(text)
    return None if none and types.NoneType in options else parse_value(text, key)


def _match(value: Any, hint: Any, key: str) -> Any:  # noqa: ANN401
    """The value as that type; NO_MATCH where it is of another one, ConfigError where a rule is broken."""
    origin, arguments = get_origin(hint), get_args(hint)
    if origin is Annotated:
        result = _match(value, arguments[0], key)
        for rule in arguments[1:] if result is not NO_MATCH else ():
            require(rule.holds(result), key, result, rule.expected)
        return result
    if origin in UNIONS:
        results = (_match(value, option, key) for option in arguments)
        return next((result for result in results if result is not NO_MATCH), NO_MATCH)
    if hint is Any:
        return _without_text(value, key)
    if origin is Literal:
        return value if any(value == word and type(value) is type(word) for word in arguments) else NO_MATCH
    if dataclasses.is_dataclass(hint):
        return value if isinstance(value, hint) else build(hint, value, f"{key}.")
    if hint is float:
        return _number(value)
    if origin in (tuple, list) and isinstance(value, list | tuple):
        repeated = origin is list or arguments[-1] is Ellipsis
        inner = [arguments[0]] * len(value) if repeated else arguments
        if len(inner) != len(value):
            return NO_MATCH
        return origin(
            _convert(item, kind, f"{key}[{i}]")
            for i, (item, kind) in enumerate(zip(value, inner, strict=True))
        )
    if origin is dict and isinstance(value, Mapping):
        for name in value:
            if not isinstance(name, str):
                raise ConfigError(f"{key}: expected names as keys, got {name!r}; put it in quotes")
        return {name: _convert(item, arguments[1], f"{key}.{name}") for name, item in value.items()}
    fits = origin is None and isinstance(value, hint) and not (hint is int and isinstance(value, bool))
    return value if fits else NO_MATCH


def _number(value: Any) -> Any:  # noqa: ANN401
    # YAML 1.1 reads 1e-3 as text, everybody else as a number.
    if isinstance(value, str) and "e" in value.lower():
        with contextlib.suppress(ValueError):
            value = float(value)
    if not isinstance(value, int | float) or isinstance(value, bool):
        return NO_MATCH
    with contextlib.suppress(OverflowError):  # a whole number of more than 308 digits
        return float(value) if math.isfinite(value) else NO_MATCH
    return NO_MATCH


def _without_text(value: Any, key: str) -> Any:  # noqa: ANN401
    if isinstance(value, Mapping):
        return {name: _without_text(item, f"{key}.{name}") for name, item in value.items()}
    return parse_value(value, key) if isinstance(value, Text) else value


def _named(option: Any) -> str:  # noqa: ANN401
    origin, arguments = get_origin(option), get_args(option)
    if origin is Literal:
        return "one of " + ", ".join(map(str, arguments))
    if origin is dict:
        return "a mapping of names to values"
    if origin is list or (origin is tuple and arguments[-1] is Ellipsis):
        return f"a list of {PLURALS.get(arguments[0], 'values')}"
    if arguments:
        return str(option)
    return "null" if option is types.NoneType else str(getattr(option, "__name__", option))
