"""A task's lists, read by the reader that its kind names in `ssondo.tasks.READERS`, without its sound."""

import inspect
import typing
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, NoneType, UnionType
from typing import Any

from ssondo.errors import SsondoError
from ssondo.tasks import READERS
from ssondo.tasks.files import names_in
from ssondo.tasks.task import DatasetSize, Remote, Task

MAX_MISSING = 0.02  # share of a task's clips


def _module(kind: str, task: str) -> ModuleType:
    if kind not in READERS:
        raise SsondoError(f"tasks.{task}.kind = {kind!r}: unknown; one of {', '.join(READERS)}")
    return import_module(READERS[kind].split(":")[0])


def _options(spec: dict[str, Any]) -> dict[str, Any]:
    """What a spec says besides its kind and path; on a command line it may stand without `options`."""
    beside = {name: value for name, value in spec.items() if name not in ("kind", "path", "options")}
    return {**beside, **(spec.get("options") or {})}


def remotes(kind: str) -> tuple[dict[str, Remote], str]:
    """The files to download for a kind of task, by name, and their licence; none for a user's own."""
    module = _module(kind, kind)
    return getattr(module, "REMOTES", {}), getattr(module, "LICENCE", "")


def official_size(kind: str) -> DatasetSize | None:
    """The official size of a kind of task; None where there is none (`table`, `pattern`, `rendered`)."""
    size: DatasetSize | None = getattr(_module(kind, kind), "SIZE", None)
    return size


def _where_from(module: ModuleType) -> str:
    """What to download, for a task whose data is not here."""
    urls = [remote.url for remote in getattr(module, "REMOTES", {}).values()]
    if not urls:
        return "set it to your data"
    more = f" (and {len(urls) - 1} more)" if len(urls) > 1 else ""
    return f"download {urls[0]}{more} (licence: {module.LICENCE}) and set the key to its folder"


def _alternatives(hint: Any) -> list[Any]:
    """The types and literal values that a type hint allows."""
    if typing.get_origin(hint) in (typing.Union, UnionType):
        return [one for part in typing.get_args(hint) for one in _alternatives(part)]
    return list(typing.get_args(hint)) if typing.get_origin(hint) is typing.Literal else [hint]


def _fits(value: Any, allowed: Any) -> bool:
    if not isinstance(allowed, type):
        return bool(value == allowed)
    if isinstance(value, bool):
        return allowed is bool
    return isinstance(value, int | float if allowed is float else allowed)


def _check_types(task: str, load: Callable[..., Task], options: Mapping[str, Any]) -> None:
    """Refuse an option's value that is not what the reader takes."""
    hints = typing.get_type_hints(load)
    for name, value in options.items():
        allowed = _alternatives(hints[name])
        if not any(_fits(value, one) for one in allowed):
            words = ["null" if one is NoneType else getattr(one, "__name__", repr(one)) for one in allowed]
            should = " or ".join(words)
            raise SsondoError(f"tasks.{task}.options.{name} = {value!r}: is not allowed; it should be {should}")


def load_task(task: str, spec: dict[str, Any], seed: int) -> Task:
    """Read a task's lists, without its sound.

    Args:
        task: its name in the config.
        spec: `kind`, `path`, and the reader's `options`.
        seed: for tasks that are rendered, or whose folds are drawn.

    Raises:
        SsondoError: if the kind or an option is unknown, the data is not there, or its lists cannot be used.
    """
    names_in.cache_clear()
    module = _module(str(spec.get("kind")), task)
    load: Callable[..., Task] = getattr(module, READERS[spec["kind"]].split(":")[1])
    options = _options(spec)
    max_missing(task, spec)
    options.pop("max_missing", None)
    known = list(inspect.signature(load).parameters)
    allowed = [name for name in known if name not in ("path", "task", "seed")]
    if unknown := sorted(set(options) - set(allowed)):
        may = f"{spec['kind']} has {', '.join([*allowed, 'max_missing'])}"
        raise SsondoError(f"tasks.{task}.options.{unknown[0]}: unknown option; {may}")
    _check_types(task, load, options)
    required = [name for name, p in inspect.signature(load).parameters.items() if p.default is inspect.Parameter.empty]
    if absent := [name for name in required if name in allowed and name not in options]:
        raise SsondoError(f"tasks.{task}.options.{absent[0]}: missing; the kind {spec['kind']} needs it")
    if "path" in known:
        if not spec.get("path"):
            raise SsondoError(f"tasks.{task}.path is not set: {_where_from(module)}")
        options["path"] = Path(spec["path"]).expanduser()
    given = {"task": task, "seed": seed}
    content = load(**options, **{name: value for name, value in given.items() if name in known})
    content.check(task)
    return content


def max_missing(task: str, spec: dict[str, Any]) -> float:
    """The share of a task's clips that may be missing."""
    value = _options(spec).get("max_missing", MAX_MISSING)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1:
        raise SsondoError(f"tasks.{task}.options.max_missing = {value!r}: must be a number from 0 to 1")
    return float(value)
