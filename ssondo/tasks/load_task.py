"""Reading of a task's lists with the function that its kind names in `ssondo.tasks.READERS`; audio is not read."""

from collections.abc import Callable
from dataclasses import replace
from importlib import import_module
from inspect import Parameter
from pathlib import Path
from types import ModuleType
from typing import Any

from ssondo.errors import SsondoError
from ssondo.system.registry import check_options, look_up, parameters_of, unknown_name
from ssondo.tasks import READERS
from ssondo.tasks.files import names_in_folder
from ssondo.tasks.task import MAX_MISSING, DatasetSize, Remote, Task


def _module(kind: str) -> ModuleType:
    if kind not in READERS:
        raise SsondoError(unknown_name("task kind", kind, READERS))
    return import_module(READERS[kind].partition(":")[0])


def remotes(kind: str) -> tuple[dict[str, Remote], str]:
    """Return the files to download for a kind of task, by name, and their licence; both empty if there are none."""
    module = _module(kind)
    return getattr(module, "REMOTES", {}), getattr(module, "LICENCE", "")


def official_size(kind: str) -> DatasetSize | None:
    """Return the official size of a kind of task, or None if it has none (`table`, `pattern`, `rendered`)."""
    size: DatasetSize | None = getattr(_module(kind), "SIZE", None)
    return size


def _how_to_get(kind: str) -> str:
    """What the user has to do if `path` is not set."""
    files, licence = remotes(kind)
    if not files:
        return "set it to the path of your data"
    urls = [remote.url for remote in files.values()]
    more = f" (and {len(urls) - 1} more)" if len(urls) > 1 else ""
    return f"download {urls[0]}{more} (licence: {licence}) and set the key to its folder"


def load_task(task: str, spec: dict[str, Any], seed: int) -> Task:
    """Read the lists of a task, without its audio.

    Args:
        task: Name of the task in the configuration.
        spec: `kind`, `path` and `options` of the task.
        seed: Seed of rendered audio and of folds or validation clips that are drawn.

    Raises:
        SsondoError: If the kind or an option does not exist, the data is missing, or its lists are invalid.
    """
    names_in_folder.cache_clear()
    kind = spec.get("kind")
    load: Callable[..., Task] = look_up(f"tasks.{task}.kind", kind, READERS)
    arguments = {"task": task, "seed": seed}
    parameters = parameters_of(load)
    # On a command line, options can also stand next to `kind` and `path`.
    options = {name: value for name, value in spec.items() if name not in ("kind", "path", "options")}
    options |= spec.get("options") or {}
    own = {name: parameter for name, parameter in parameters.items() if name not in ("path", *arguments)}
    own["max_missing"] = Parameter("max_missing", Parameter.KEYWORD_ONLY, default=MAX_MISSING, annotation=float)
    check_options(f"tasks.{task}.options of kind {kind}", options, own)
    max_missing = options.pop("max_missing", MAX_MISSING)
    if not 0 <= max_missing <= 1:
        raise SsondoError(f"tasks.{task}.options.max_missing is {max_missing!r}; it must be a number from 0 to 1")
    if "path" in parameters:
        if not spec.get("path"):
            raise SsondoError(f"tasks.{task}.path is not set: {_how_to_get(str(kind))}")
        options["path"] = Path(spec["path"]).expanduser()
    content = load(**options, **{name: value for name, value in arguments.items() if name in parameters})
    content.check(task)
    return replace(content, max_missing=max_missing)
