"""Conversion of settings to command-line options."""

import json
import shlex
from collections.abc import Mapping
from typing import Any


def to_cli_options(**values: Any) -> str:
    """Return settings as command-line options, `--key value`, quoted for the shell, in the given order.

    None and empty lists are left out; a mapping becomes a JSON object.
    """
    words: list[str] = []
    for key, value in values.items():
        name = "--" + key.replace("_", "-")
        if value is None or value in ([], ()):
            continue
        if isinstance(value, bool):
            words.append(name if value else f"--no-{name[2:]}")
        elif isinstance(value, Mapping):
            words += [name, json.dumps(value, sort_keys=True)]
        elif isinstance(value, list | tuple):
            words += [name, *map(str, value)]
        else:
            words += [name, str(value)]
    return shlex.join(words)
