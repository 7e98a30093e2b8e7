"""The command line: `ssondo VERB --option value ...`, a verb for each rule of the workflow.

A verb is a library function; its arguments are the options and its docstring the help. The
fields of an argument that is a dataclass are options of their own. This file only turns text
into arguments and a `SsondoError` into one line. `--log FILE` keeps what is printed, and the
traceback where there is one.
"""

import ast
import dataclasses
import functools
import importlib
import inspect
import json
import logging
import os
import sys
import traceback
import types
import typing
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from ssondo.errors import SsondoError
from ssondo.workflow.verbs import COMMANDS

_INTERRUPTED = 130
_BUG = 70  # EX_SOFTWARE of sysexits.h


def _from_json(_: Any, tokens: Any) -> Any:
    text = tokens[0].value
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON ({error.msg} at character {error.pos}): {text}") from None
    if not isinstance(value, dict):
        raise ValueError(f"not a JSON object: {text}")
    return value


_JSON = Parameter(converter=_from_json, accepts_keys=False, n_tokens=1)
_FIELDS = Parameter(name="*")


def _takes_dict(annotation: Any) -> bool:
    if isinstance(annotation, types.UnionType) or typing.get_origin(annotation) is typing.Union:
        return any(_takes_dict(part) for part in typing.get_args(annotation))
    return typing.get_origin(annotation) is dict or annotation is dict


def _annotated(hint: Any) -> Any:
    if _takes_dict(hint):
        return Annotated[hint, _JSON]
    return Annotated[hint, _FIELDS] if dataclasses.is_dataclass(hint) else hint


def _command(function: Callable[..., Any]) -> Callable[..., Any]:
    """`function` with each dict argument read from a JSON object, and an option for each field of a dataclass."""
    hints = typing.get_type_hints(function)
    signature = inspect.signature(function)
    annotations = {name: _annotated(hints[name]) for name in signature.parameters}

    @functools.wraps(function)
    def command(*positional: Any, **arguments: Any) -> Any:
        return function(*positional, **arguments)

    command.__annotations__ = annotations
    command.__signature__ = signature.replace(  # type: ignore[attr-defined]
        parameters=[p.replace(annotation=annotations[name]) for name, p in signature.parameters.items()],
        return_annotation=inspect.Signature.empty,
    )
    return command


def _load(verb: str) -> Callable[..., Any]:
    module, _, name = COMMANDS[verb].partition(":")
    function: Callable[..., Any] = getattr(importlib.import_module(module), name)
    return function


def _summary(verb: str) -> str:
    """The first line of a verb's docstring, read without importing what it imports."""
    module, _, name = COMMANDS[verb].partition(":")
    base = Path(__file__).parents[1].joinpath(*module.split("."))
    path = base / "__init__.py" if base.is_dir() else base.with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _app(verb: str | None) -> App:
    """The application with `verb`'s arguments; the others are listed by name alone, unimported."""
    app = App(
        name="ssondo",
        help="Distil general audio foundation models into small students.",
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
        version_flags=[],
    )
    if verb is not None:
        app.command(_command(_load(verb)), name=verb)
    else:
        for name in COMMANDS:
            app.command(App(name=name, help=_summary(name)))
    return app


def _own(arguments: list[str]) -> list[str]:
    """Return the arguments before `--`; those after it belong to the command that `launch` starts."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _take_option(arguments: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` from `arguments` and return VALUE; what follows `--` is left alone."""
    for i, argument in enumerate(_own(arguments)):
        if argument == name:
            if i + 1 == len(arguments):
                raise SsondoError(f"{name} requires an argument")
            del arguments[i]
            return arguments.pop(i)
        if argument.startswith(f"{name}="):
            del arguments[i]
            return argument.partition("=")[2]
    return None


def _set_up_logging(path: str | None) -> logging.Logger:
    log = logging.getLogger("ssondo")
    log.setLevel(logging.INFO)
    log.propagate = False
    for handler in list(log.handlers):
        log.removeHandler(handler)
    log.addHandler(logging.StreamHandler())
    if path is not None:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        file = logging.FileHandler(path, mode="w", encoding="utf-8")
        file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
        log.addHandler(file)
    return log


def _note_traceback(log: logging.Logger) -> None:
    """Write the traceback of the exception in flight to the log file alone."""
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            handler.stream.write(traceback.format_exc())
            handler.flush()


def _run(arguments: list[str], log: logging.Logger, log_path: str | None) -> int:
    verb = next((a for a in arguments if not a.startswith("-")), None)
    if verb is not None and verb not in COMMANDS:
        import difflib

        near = difflib.get_close_matches(verb, COMMANDS, 1)
        hint = f"; did you mean {near[0]}?" if near else ""
        log.error("error: ssondo has no verb %s%s (ssondo --help lists them)", verb, hint)
        return 2
    try:
        _app(verb)(arguments, exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        error.verbose = False
        log.error("error: %s", " ".join(str(error).split()))
        return 2
    except SsondoError as error:
        log.error("error: %s", " ".join(str(error).split()))
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted; nothing unfinished was kept under a final name")
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "ssondo":
            raise
        _note_traceback(log)
        log.error(
            "error: the package %s is missing; install it in the folder of this project with: "
            "pip install '.[pipeline,demo]'",
            error.name,
        )
        return 1
    except Exception as error:  # the last resort: a bug becomes a line, its traceback goes to the log
        if log_path is None:
            raise
        _note_traceback(log)
        log.error("error: unexpected %s: %s; the traceback is in %s", type(error).__name__, error, log_path)
        return _BUG
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one verb.

    Returns:
        The exit code: 0; 1 for a fault that the user can mend; 2 for wrong arguments; 70 for a
        bug; 75 where the same command may work later; 130 if interrupted.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        log_path = _take_option(arguments, "--log")
    except SsondoError as error:
        _set_up_logging(None).error("error: %s", error)
        return 2
    if os.environ.get("RANK", "0") != "0":
        log_path = None  # of the processes that torchrun starts, the first writes the file
    log = _set_up_logging(log_path)
    if "--version" in _own(arguments):
        from importlib.metadata import version

        log.info("ssondo %s", version("ssondo"))
        return 0
    return _run(arguments, log, log_path)


if __name__ == "__main__":
    sys.exit(main())
