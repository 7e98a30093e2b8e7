"""Settings from config files and the command line to a checked `Config`, or one line that says what is wrong."""

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
from ssondo.registry import did_you_mean

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
    """The sections that an annotation allows (through unions, dicts and Annotated)."""
    if isinstance(annotation, type) and issubclass(annotation, Section):
        return [annotation]
    return [section for part in typing.get_args(annotation) for section in _section_of(part)]


def _keys_at(path: tuple[int | str, ...]) -> list[str]:
    """The keys that are allowed beside the one that `path` ends with."""
    sections: list[type[Section]] = [Config]
    for part in path[:-1]:
        found = [
            section
            for model in sections
            if part in model.model_fields
            for section in _section_of(model.model_fields[str(part)].annotation)
        ]
        # A name that the user gave (teachers.NAME) or a union's tag (source.youtube) is no field: stay.
        tagged = [s for s in sections if "kind" in s.model_fields and s.model_fields["kind"].default == part]
        sections = found or tagged or sections
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
    "string_type": "a text; put it in quotes",
    "list_type": "a list; write it in [ ]",
}
PATTERNS = {
    r"^[A-Za-z0-9][A-Za-z0-9_]*$": "a name of letters, digits and _ (not first), no spaces or hyphens",
    r"^[\w./~+@=-]+$": "a path of letters, digits and . / ~ + @ = _ -, no spaces",
    r"^[\w.]+(:\w+)?$": "the name of an architecture, or package.module:Class, no spaces or hyphens",
    r"^[\w.]+:[\w.]+$": "package.module:function, no spaces or hyphens",
    r"^[0-9a-f]{64}$": "64 digits of 0 to 9 and a to f, in small letters",
    r"^https?://\S+$": "an address that begins with http:// or https://, no spaces",
    r"^http://": "an address that begins with http://",
    r"\{ytid\}": "an address with {ytid} where the clip's id goes",
}
"""What a text of each pattern is, in words."""


def _section_wanted(error: ErrorDetails) -> str:
    """What to write where a section belongs and none stands."""
    value, key = error["input"], error["loc"][-1]
    if isinstance(value, str) and key in ("checkpoint", "pretrained"):
        origin = "url" if value.startswith(("http://", "https://")) else "path"
        return f"a section; write {{{origin}: {value}}}"
    if isinstance(value, str) and key == "source":
        return f"a section; write {{kind: {value}}}"
    return "a section, keys with values"


def _keys_of(error: ErrorDetails) -> str:
    """The key of the file that a fault is about, with dots."""
    path = error["loc"]
    if path[:1] == ("students",) and path[2:3] == ("settings",):
        # The rest is a type of those that a setting may have.
        path = path[:4]
    # Nor is the tag of a union a key of the file, nor the mark of a key that is wrong itself.
    return ".".join(str(part) for i, part in enumerate(path) if part != "[key]" and not (i and path[i - 1] == "source"))


def _sentence(error: ErrorDetails) -> str:
    """One line for a fault that pydantic found: the key, the value, what is allowed."""
    path, shown = error["loc"], _keys_of(error)
    if error["type"] == "extra_forbidden":
        if new_name := _new_name(shown):
            return f"unknown key {shown!r}; its name is {new_name!r} now"
        keys = _keys_at(path)
        suggestion = did_you_mean(str(path[-1]), keys)
        return f"unknown key {shown!r}{suggestion or '; known keys: ' + ', '.join(keys)}"
    if error["type"] == "union_tag_invalid":
        allowed = error["ctx"]["expected_tags"]
        return f"{shown}.kind: {_shown(error['input'].get('kind'))} is not allowed; it should be one of {allowed}"
    if error["type"] == "union_tag_not_found":
        return f"{shown}.kind: this key is missing"
    if error["type"] in ("model_type", "model_attributes_type", "dict_type"):
        if error["input"] is None:
            return f"{shown}: this section is empty; give it keys or leave it out"
        return f"{shown}: {_shown(error['input'])} is not allowed; it should be {_section_wanted(error)}"
    if error["type"] == "too_short":
        return f"{shown}: is empty; it should have at least {error['ctx']['min_length']}"
    if error["type"] == "missing":
        return f"{shown}: this key is missing"
    message = error["msg"].removeprefix("Value error, ").removeprefix("Input should be ")
    if error["type"] == "value_error":
        return f"{shown}: {message}" if shown else message
    if error["type"] == "string_pattern_mismatch":
        message = PATTERNS.get(error["ctx"]["pattern"], message)
    elif path[2:3] == ("settings",):
        message = "a number, true or false, a text, or a list of whole numbers"
    else:
        message = _WORDS.get(error["type"], message)
    return f"{shown}: {_shown(error['input'])} is not allowed; it should be {message}"


def load_config(values: Mapping[str, Any]) -> Config:
    """Check the merged configuration.

    Args:
        values: as Snakemake merged it from config.yaml, the profile and the command line.

    Raises:
        SsondoError: one line about the first fault: its key, value and what is allowed.
    """
    try:
        return Config.model_validate(dict(values))
    except ValidationError as error:
        # A key that is misspelt also leaves one that is missing: name the cause.
        details = sorted(error.errors(include_url=False), key=lambda e: e["type"] != "extra_forbidden")
        n_more = len({_keys_of(detail) for detail in details}) - 1
        more = f" (and {n_more} more)" if n_more else ""
        raise SsondoError(f"config: {_sentence(details[0])}{more}") from None


def load_files(files: Sequence[Path]) -> Config:
    """The configuration of config.yaml in this folder and `files`, merged as Snakemake does.

    Raises:
        SsondoError: if a file is missing, no YAML, or holds what the configuration does not allow.
    """
    import yaml

    values: dict[str, Any] = {}
    own = Path("config.yaml")
    for path in [*([own] if own.is_file() and own not in files else []), *files]:
        try:
            found = yaml.safe_load(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            raise SsondoError(
                f"{path}: no such file; give a config file, as snakemake's --configfile takes it"
            ) from None
        except yaml.YAMLError as error:
            raise SsondoError(f"{path}: not YAML ({' '.join(str(error).split())})") from None
        if not isinstance(found, dict | None):
            raise SsondoError(f"{path}: not a config file; it holds no keys")
        _merge(values, found or {})
    return load_config(values)


def _merge(into: dict[str, Any], more: Mapping[str, Any]) -> None:
    for key, value in more.items():
        if isinstance(value, Mapping) and isinstance(into.get(key), dict):
            _merge(into[key], value)
        else:
            into[key] = value
