"""Validation of the configuration, with one line of error message that names the key and the value."""

import typing
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from ssondo.config import Config
from ssondo.config.base import Section
from ssondo.errors import SsondoError
from ssondo.system.registry import did_you_mean

RENAMED_KEYS = {
    "audioset.through_rate": "audioset.bandlimit_rate",
    "audioset.source.stall_s": "audioset.source.socket_timeout_s",
    "audioset.source.deadline_s": "audioset.source.clip_timeout_s",
    "audioset.source.attempts": "audioset.source.max_tries_per_clip",
    "audioset.source.retries": "audioset.source.max_retries_per_job",
    "audioset.source.whole_files": "audioset.source.files_are_clips",
    "runtime.cluster_memory_mb": "cluster.memory_mb",
    "cluster.fit_eval": "cluster.include_eval",
    "students.*.init": "students.*.pretrained",
    **{
        f"{section}.{old}": f"{section}.{new}"
        for section in ("distill", "supervise")
        for old, new in {
            "draws_per_epoch": "samples_per_epoch",
            "final_multiplier": "final_lr_fraction",
            "gradient_clip": "max_grad_norm",
            "reestimate_batches": "bn_update_batches",
        }.items()
    },
}
"""Former names of keys and their present names; * stands for a name that the user chose."""


def _new_name(key: str) -> str | None:
    """Return the present name of a key that was renamed; None if it was not."""
    for old, new in RENAMED_KEYS.items():
        if fnmatchcase(key, old):
            return new.replace("*", key.split(".")[1])
    return None


def _section_of(annotation: Any) -> list[type[Section]]:
    """Return the sections within an annotation, which may be a union, a dict or Annotated."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _section_of(part)]


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    """Return the keys that are allowed in the section of the last key of `path`."""
    sections: list[type[Section]] = [Config]
    for part in path[:-1]:
        inner = [
            section
            for model in sections
            if part in model.model_fields
            for section in _section_of(model.model_fields[str(part)].annotation)
        ]
        # A name chosen by the user (teachers.NAME) or the tag of a union (source.youtube) is not a field of a section.
        tagged = [s for s in sections if "kind" in s.model_fields and s.model_fields["kind"].default == part]
        sections = inner or tagged or sections
    return sorted({key for section in sections for key in section.model_fields})


def _shown(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


_WORDS = {
    "bool_parsing": "true or false",
    "bool_type": "true or false",
    "int_parsing": "a whole number",
    "int_type": "a whole number",
    "int_from_float": "a whole number",
    "float_parsing": "a number",
    "float_type": "a number",
    "string_type": "a string; put it in quotes",
    "list_type": "a list; write it in [ ]",
}
PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_]*$": "a name of letters, digits and _, not beginning with _, without spaces and hyphens",
    r"^[\w./~+@=-]+$": "a path of letters, digits and . / ~ + @ = _ -, without spaces",
    r"^[\w.]+(:\w+)?$": "the name of an architecture, or package.module:Class, without spaces and hyphens",
    r"^[\w.]+:[\w.]+$": "of the form package.module:function, without spaces and hyphens",
    r"^[0-9a-f]{64}$": "64 hexadecimal digits in lower case",
    r"^https?://\S+$": "a URL that begins with http:// or https://, without spaces",
    r"^http://": "a URL that begins with http://",
    r"\{ytid\}": "a URL with {ytid} in place of the id of the clip",
}
"""Descriptions of the strings that match each pattern, for error messages."""


def _expected_section(error: ErrorDetails) -> str:
    """Return what to write in place of a value that is not a section."""
    value, key = error["input"], error["loc"][-1]
    if isinstance(value, str) and key in ("checkpoint", "pretrained"):
        origin = "url" if value.startswith(("http://", "https://")) else "path"
        return f"a section; write {{{origin}: {value}}}"
    if isinstance(value, str) and key == "source":
        return f"a section; write {{kind: {value}}}"
    return "a section, i.e. keys with values"


def _keys_of(error: ErrorDetails) -> str:
    """Return the key in the configuration file that an error is about, with dots."""
    path = error["loc"]
    if path[:1] == ("students",) and path[2:3] == ("settings",):
        # The remaining parts name a type of the union of allowed types.
        path = path[:4]
    # Neither the tag of a union nor the mark of an invalid key is a key of the file.
    return ".".join(str(part) for i, part in enumerate(path) if part != "[key]" and not (i and path[i - 1] == "source"))


def _sentence(error: ErrorDetails) -> str:
    """Return one line about an error of pydantic: the key, the value and what is allowed."""
    path, shown = error["loc"], _keys_of(error)
    if error["type"] == "extra_forbidden":
        if new_name := _new_name(shown):
            return f"unknown key {shown!r}; it was renamed to {new_name!r}"
        keys = _keys_at(path)
        suggestion = did_you_mean(str(path[-1]), keys)
        return f"unknown key {shown!r}{suggestion or '; the keys of this section are ' + ', '.join(keys)}"
    if error["type"] == "union_tag_invalid":
        allowed = error["ctx"]["expected_tags"]
        return f"{shown}.kind: {_shown(error['input'].get('kind'))} is not allowed; it should be one of {allowed}"
    if error["type"] == "union_tag_not_found":
        return f"{shown}.kind: this key is missing"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        if error["input"] is None:
            return f"{shown}: this section is empty; add keys or remove it"
        return f"{shown}: {_shown(error['input'])} is not allowed; it should be {_expected_section(error)}"
    if error["type"] == "too_short":
        return f"{shown}: the list is empty; at least {error['ctx']['min_length']} entry is required"
    if error["type"] == "missing":
        return f"{shown}: this key is missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{shown}: {message}" if shown else message
    if error["type"] == "string_pattern_mismatch":
        message = PATTERNS.get(error["ctx"]["pattern"], message)
    elif path[2:3] == ("settings",):
        message = "a number, true or false, a string, or a list of whole numbers"
    else:
        message = _WORDS.get(error["type"], message)
    return f"{shown}: {_shown(error['input'])} is not allowed; it should be {message}"


def load_config(values: Mapping[str, Any]) -> Config:
    """Check the merged configuration.

    Args:
        values: the configuration as Snakemake merged it from config.yaml, the profile and the command line.

    Raises:
        SsondoError: if the configuration is invalid; the message is about the first error.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        # A misspelt key often causes a missing key too, so it is reported first.
        details = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        n_more = len({_keys_of(detail) for detail in details}) - 1
        more = f" (and {n_more} more)" if n_more else ""
        raise SsondoError(f"config: {_sentence(details[0])}{more}") from None


def load_files(files: Sequence[Path]) -> Config:
    """Load config.yaml of the working directory and `files`, merged as Snakemake merges them.

    Raises:
        SsondoError: if a file is missing or not YAML, or the configuration is invalid.
    """
    import yaml

    values: dict[str, Any] = {}
    default = Path("config.yaml")
    for path in [*([default] if default.is_file() and default not in files else []), *files]:
        try:
            content = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SsondoError(
                f"{path}: this file does not exist; give a configuration file as for snakemake --configfile"
            ) from None
        except yaml.YAMLError as error:
            raise SsondoError(f"{path}: the file is not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(content, dict | None):
            raise SsondoError(f"{path}: this is not a configuration file; it has no keys")
        _merge(values, content or {})
    return load_config(values)


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
