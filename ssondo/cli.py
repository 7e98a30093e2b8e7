"""The command line: `ssondo COMMAND --option VALUE ...`, with one command for each rule of the workflow.

A command is a library function: its parameters are the options, and its docstring is the help. A parameter that is a
dataclass has one option for each of its fields. This module converts the arguments and prints a `SsondoError` as one
line. `--log FILE` also writes all messages, and the traceback of an unexpected error, to a file.
"""

import ast
import dataclasses
import functools
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

from cyclopts import App, CycloptsError, Group, Parameter

from ssondo.errors import SsondoError, TransientError
from ssondo.system.registry import did_you_mean, look_up
from ssondo.workflow.verbs import COMMANDS

_STAGES = {
    "audioset": "Corpus",
    "teachers": "Teachers",
    "cluster": "Clusters",
    "distill": "Students",
    "tasks": "Downstream tasks",
    "probe": "Probes",
    "report": "Tables and report",
    "inference": "Use of a student",
    "workflow": "Whole run",
}
"""Headings of the list of commands by package, in the order of the list."""
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
    """Return `function` with a signature that reads a dict from JSON and has one option per field of a dataclass."""
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


def _summary(command: str) -> str:
    """Return the first line of a command's docstring without importing its module, which may import torch."""
    module, _, name = COMMANDS[command].partition(":")
    path = Path(__file__).parents[1].joinpath(*module.split(".")).with_suffix(".py")
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _app(name: str | None) -> App:
    """Return the application with the options of one command, or with the list of all commands if `name` is None."""
    app = App(
        name="ssondo",
        help="Distil general audio foundation models into small students.",
        help_epilogue=(
            "ssondo COMMAND --help explains the options of a command. Every command accepts --log FILE, which also "
            "writes its messages to a file. ssondo --version prints the version."
        ),
        default_parameter=Parameter(consume_multiple=True, negative_iterable=()),
        version_flags=[],
    )
    if name is not None:
        app.command(_command(look_up("command", name, COMMANDS)), name=name, help_epilogue="")
        return app
    app["--help"].show = False
    groups = {package: Group(title, sort_key=i) for i, (package, title) in enumerate(_STAGES.items())}
    for i, (command, target) in enumerate(COMMANDS.items()):
        group = groups[target.split(".")[1]]
        app.command(App(name=command, help=_summary(command), group=group, sort_key=i))
    return app


def _before_dashes(arguments: list[str]) -> list[str]:
    """Return the arguments before `--`; the others belong to the command that `launch` starts."""
    return arguments[: arguments.index("--")] if "--" in arguments else arguments


def _take_option(arguments: list[str], name: str) -> str | None:
    """Remove `name VALUE` or `name=VALUE` before `--` from `arguments` and return VALUE; None if it is not there."""
    for i, argument in enumerate(_before_dashes(arguments)):
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


def _log_traceback(log: logging.Logger) -> None:
    """Write the traceback of the current exception to the log file, but not to the terminal."""
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler) and handler.stream is not None:
            handler.stream.write(traceback.format_exc())
            handler.flush()


def _run(arguments: list[str], log: logging.Logger, log_path: str | None) -> int:
    name = next((a for a in arguments if not a.startswith("-")), None)
    if name is not None and name not in COMMANDS:
        log.error(
            "error: the command %r does not exist%s; ssondo --help lists all commands",
            name,
            did_you_mean(name, COMMANDS),
        )
        return 2
    try:
        _app(name)(arguments, exit_on_error=False, print_error=False, result_action="return_none")
    except CycloptsError as error:
        error.verbose = False
        log.error("error: %s", " ".join(str(error).split()))
        return 2
    except SsondoError as error:
        # The workflow repeats a job whose error is temporary, and no other (ssondo.workflow.job_failures).
        kind = "temporary error" if isinstance(error, TransientError) else "error"
        log.error("%s: %s", kind, " ".join(str(error).split()))
        return error.exit_code
    except KeyboardInterrupt:
        log.error("interrupted; no incomplete file has its final name")
        return _INTERRUPTED
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.partition(".")[0] == "ssondo":
            raise
        _log_traceback(log)
        log.error(
            "error: the package %s is not installed; run in the folder of this project: pip install '.[pipeline,demo]'",
            error.name,
        )
        return 1
    except Exception as error:  # A bug: the user reads one line, and the log has the traceback.
        if log_path is None:
            raise
        _log_traceback(log)
        log.error("error: unexpected %s: %s; the traceback is in %s", type(error).__name__, error, log_path)
        return _BUG
    return 0


def main(arguments: list[str] | None = None) -> int:
    """Run one command.

    Args:
        arguments: the command and its options; by default those of the process.

    Returns:
        The exit code: 0 for success; 1 for an error that the user can correct; 2 for invalid arguments; 70 for a bug;
        75 for an error that may not occur again, e.g. of the network; 130 for an interruption.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        log_path = _take_option(arguments, "--log")
    except SsondoError as error:
        _set_up_logging(None).error("error: %s", error)
        return 2
    if os.environ.get("RANK", "0") != "0":
        log_path = None  # Of the processes that torchrun starts, only the first one writes the file.
    log = _set_up_logging(log_path)
    if "--version" in _before_dashes(arguments):
        from importlib.metadata import version

        log.info("ssondo %s", version("ssondo"))
        return 0
    return _run(arguments, log, log_path)


if __name__ == "__main__":
    sys.exit(main())
