"""Objects that a configuration names: import by "module:name", suggestions for misspelt names, checks of options.

A registry is a dictionary from a short name to "module:name". The object is imported when it is asked for, so that one
entry neither imports the others nor is part of their code hashes.
"""

import difflib
import importlib
import inspect
import types
import typing
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from ssondo.errors import SsondoError

# The types that are accepted for an annotation, and their description. bool is not accepted for int although it is a
# subclass, see `_matches`.
_ACCEPTED: dict[Any, tuple[tuple[type, ...], str]] = {
    bool: ((bool,), "true or false"),
    int: ((int,), "a whole number"),
    float: ((int, float), "a number"),
    str: ((str,), "a text"),
    types.NoneType: ((types.NoneType,), "null"),
    **dict.fromkeys((list, tuple, Sequence), ((list, tuple), "a list")),
    **dict.fromkeys((dict, Mapping), ((dict,), "a mapping")),
}


def did_you_mean(name: str, choices: Collection[str]) -> str:
    """Return " (did you mean 'NAME'?)" for the choice that resembles `name` most, or "" if none resembles it."""
    close = difflib.get_close_matches(name, choices, 1, 0.5)
    return f" (did you mean {close[0]!r}?)" if close else ""


def unknown_name(kind: str, name: object, choices: Collection[str]) -> str:
    """Return the error message for a name that is not in a registry.

    Args:
        kind: what is looked up, e.g. "teacher".
        name: the name that was given.
        choices: the names that exist.
    """
    return f"{kind} {name!r} does not exist; choose one of {', '.join(choices)}{did_you_mean(str(name), choices)}"


def look_up(kind: str, name: object, registry: Mapping[str, str]) -> Any:
    """Import the object that a registry names.

    Args:
        kind: what is looked up, e.g. "teacher"; used in the error message.
        name: a key of `registry`.
        registry: "module:name" by short name.

    Raises:
        SsondoError: if `name` is not a key of `registry`.
    """
    if not isinstance(name, str) or name not in registry:
        raise SsondoError(unknown_name(kind, name, registry))
    module, _, attribute = registry[name].partition(":")
    return getattr(importlib.import_module(module), attribute)


def import_object(kind: str, target: str) -> Any:
    """Import an object of the user's code.

    Args:
        kind: what is imported, e.g. "student"; used in error messages.
        target: "package.module:name"; the name may contain dots.

    Raises:
        SsondoError: if `target` has another form, or the module, a package that it imports, or the name does not exist.
    """
    module_name, _, path = target.partition(":")
    if not module_name or not path:
        raise SsondoError(f"{kind} {target!r} is not of the form package.module:name")
    try:
        found: Any = importlib.import_module(module_name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{module_name}.".startswith(f"{error.name}."):
            raise SsondoError(f"{kind} {target!r}: its module needs {error.name!r}, which is not installed") from None
        raise SsondoError(
            f"{kind} {target!r}: the module {error.name!r} does not exist; install it or add its folder to PYTHONPATH"
        ) from None
    for attribute in path.split("."):
        if not hasattr(found, attribute):
            raise SsondoError(f"{kind} {target!r}: the module {module_name} has no {path!r}")
        found = getattr(found, attribute)
    return found


def parameters_of(function: Callable[..., Any], ignored: Collection[str] = ()) -> dict[str, inspect.Parameter]:
    """Return the parameters of a function or class by name, with evaluated annotations, without `ignored`."""
    parameters = inspect.signature(function, eval_str=True).parameters
    return {name: parameter for name, parameter in parameters.items() if name not in ignored}


def check_options(subject: str, options: Mapping[str, Any], parameters: Mapping[str, inspect.Parameter]) -> None:
    """Check options against the parameters that they will be passed to.

    A type is checked if the annotation is one of, or a union of, bool, int, float, str, a list or tuple, a dict, None
    and Literal; a whole number is accepted where a number is expected.

    Args:
        subject: the object that has the options, e.g. "loss 'cosine'"; error messages begin with it.
        options: values by name.
        parameters: see `parameters_of`.

    Raises:
        SsondoError: if an option does not exist, is missing although it has no default, or has another type.
    """
    names = [name for name, parameter in parameters.items() if parameter.kind is not parameter.VAR_KEYWORD]
    if len(names) == len(parameters):
        for name in options:
            if name not in names:
                existing = f"its options are {', '.join(names)}" if names else "it has no options"
                raise SsondoError(f"{subject} has no option {name!r}; {existing}{did_you_mean(name, names)}")
    for name, value in options.items():
        annotation = parameters[name].annotation if name in names else Any
        choices = _choices(annotation)
        if not any(_matches(value, choice) for choice in choices):
            words = " or ".join(_describe(choice) for choice in choices)
            raise SsondoError(f"{subject}: option {name!r} is {value!r}; it must be {words}")
    for name in names:
        if name not in options and parameters[name].default is inspect.Parameter.empty:
            raise SsondoError(f"{subject} requires the option {name!r}")


def _choices(annotation: Any) -> list[Any]:
    """The members of a union, each as a type or as Literal[...]."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        return [choice for part in typing.get_args(annotation) for choice in _choices(part)]
    return [annotation]


def _matches(value: Any, choice: Any) -> bool:
    origin = typing.get_origin(choice) or choice
    if origin is typing.Literal:
        return value in typing.get_args(choice)
    if origin not in _ACCEPTED:
        return True
    return isinstance(value, _ACCEPTED[origin][0]) and (origin is bool or not isinstance(value, bool))


def _describe(choice: Any) -> str:
    origin = typing.get_origin(choice) or choice
    return " or ".join(map(repr, typing.get_args(choice))) if origin is typing.Literal else _ACCEPTED[origin][1]
