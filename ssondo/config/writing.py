"""Generate config.yaml and docs/config.md from the typed models."""

import textwrap
import types
import typing
from typing import Any

import yaml
from pydantic import BaseModel
from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

_WIDTH = 110


def _scalar(value: Any) -> str:
    text: str = yaml.safe_dump(value, default_flow_style=True, width=10_000)
    return text.removesuffix("\n").removesuffix("\n...").strip()


def _comment(text: str, indent: int) -> list[str]:
    prefix = " " * indent + "# "
    return textwrap.wrap(" ".join(text.split()), _WIDTH, initial_indent=prefix, subsequent_indent=prefix)


def _lines(model: BaseModel, indent: int, documented: set[type]) -> list[str]:
    """Return a model as YAML; the keys of a class are described only where the class first occurs."""
    describe = type(model) not in documented
    documented.add(type(model))
    lines: list[str] = []
    for name, field in type(model).model_fields.items():
        value = getattr(model, name)
        if describe:
            lines += _comment(_description(field, value), indent)
        lines += _entry(name, value, indent, documented)
        if indent == 0:
            lines.append("")
    return lines


def _description(field: FieldInfo, value: Any) -> str:
    if field.description:
        return field.description
    return (type(value).__doc__ or "") if isinstance(value, BaseModel) else ""


def _entry(name: str, value: Any, indent: int, documented: set[type]) -> list[str]:
    pad = " " * indent
    if isinstance(value, BaseModel):
        body = _lines(value, indent + 2, documented)
        return [f"{pad}{name}:", *body] if body else [f"{pad}{name}: {{}}"]
    if isinstance(value, dict) and value:
        body = [line for key, item in value.items() for line in _entry(key, item, indent + 2, documented)]
        return [f"{pad}{name}:", *body]
    if isinstance(value, list) and len(_scalar(value)) > _WIDTH - 20:
        return [f"{pad}{name}:", *(f"{pad}  - {_scalar(item)}" for item in value)]
    return [f"{pad}{name}: {_scalar(value)}"]


def yaml_text(config: BaseModel) -> str:
    """Return the configuration as YAML with a comment above each key."""
    head = [
        "# The experiment of the paper, generated from ssondo/config by: python -m ssondo.config --write",
        "# To override keys, put them into your own file: snakemake --configfile mine.yaml",
        "",
    ]
    return "\n".join([*head, *_lines(config, 0, set())]).rstrip() + "\n"


def _type_name(annotation: Any) -> str:
    if annotation is type(None):
        return "null"
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return _type_name(typing.get_args(annotation)[0])
    if origin is typing.Literal:
        return " \\| ".join(f"`{value}`" for value in typing.get_args(annotation))
    if origin in (typing.Union, types.UnionType):
        return " \\| ".join(_type_name(part) for part in typing.get_args(annotation))
    if origin in (list, dict):
        inner = typing.get_args(annotation)[-1]
        return f"{'list' if origin is list else 'mapping'} of {_type_name(inner)}"
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    return getattr(annotation, "__name__", str(annotation))


def _default(field: FieldInfo) -> str:
    value = field.default
    if value is PydanticUndefined:
        return "required"
    if isinstance(value, BaseModel) or (isinstance(value, dict) and value):
        return "see config.yaml"
    text = _scalar(value)
    return f"`{text}`" if len(text) < 60 else "see config.yaml"


def _sections(model: type[BaseModel], sections: list[type[BaseModel]]) -> list[type[BaseModel]]:
    """Append a model and the models of its fields to `sections`, which is returned."""

    def visit(annotation: Any) -> None:
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            if annotation not in sections:
                _sections(annotation, sections)
        else:
            for part in typing.get_args(annotation):
                visit(part)

    sections.append(model)
    for field in model.model_fields.values():
        visit(field.annotation)
    return sections


def _bounds(field: FieldInfo) -> str:
    signs = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤"}
    bounds = [f"{signs[k]} {getattr(m, k)}" for m in field.metadata for k in signs if getattr(m, k, None) is not None]
    return f" ({', '.join(bounds)})" if bounds else ""


def reference(model: type[BaseModel]) -> str:
    """Return the reference page in Markdown, with a table for each section."""
    lines = [
        "# Configuration",
        "",
        "This page is generated from `ssondo/config` by `python -m ssondo.config --write`.",
        "",
    ]
    for section in _sections(model, []):
        lines += [f"## {section.__name__}", "", " ".join((section.__doc__ or "").split()), ""]
        lines += ["| key | description | type | default |", "|---|---|---|---|"]
        for name, field in section.model_fields.items():
            kind = _type_name(field.annotation) + _bounds(field)
            lines.append(f"| `{name}` | {' '.join((field.description or '').split())} | {kind} | {_default(field)} |")
        lines.append("")
    return "\n".join(lines).rstrip() + "\n"
