"""The report's scores: tables and figures, and for each number the box that says where it comes from."""

import csv
import io
import json
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ssondo.errors import SsondoError
from ssondo.report.charts import Series, line_chart
from ssondo.report.page import (
    Datum,
    Html,
    Line,
    code,
    definitions,
    join,
    number,
    opener,
    plots,
    popover,
    table,
)
from ssondo.report.score_table import Entry, Published, entry_text, mark_best, per_cent, published_text
from ssondo.report.scores import Cell, Cells, Setting

_METRICS = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "masked_map": "mean average precision over known labels",
}


def read_table(path: Path) -> list[dict[str, str]]:
    """Lines of a CSV that the workflow wrote, by column."""
    try:
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such file; make it with: snakemake {path}") from None


def value_of(text: str | None) -> float | None:
    """A number of a CSV, None where it is empty or no number."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def percent_text(mean: float, ci95: float | None) -> str:
    """A score in [0, 1] and its interval in per cent."""
    return entry_text(Entry(100 * mean, per_cent(ci95)))


# Where a number comes from


def origin_key(cell: Cell) -> str:
    """The name of a cell's box in the page."""
    setting = cell.setting
    parts = [setting.row_kind, setting.teacher, setting.student, setting.loss, str(setting.n_clusters), cell.task]
    return "origin-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts)


def _options_text(options: Mapping[str, Any]) -> str:
    return ", ".join(f"{name} {json.dumps(value)}" for name, value in sorted(options.items()))


def _choices(source: Mapping[str, Any]) -> str:
    """The grid points that were chosen, each with how often."""
    chosen = Counter(
        f"rate {point['learning_rate']:g}, decay {point['weight_decay']:g}, batch {point['batch_size']}"
        for part in source.get("parts", [])
        for point in part.get("chosen", [])
    )
    return "; ".join(f"{point} ({times}x)" for point, times in chosen.most_common())


# A verb, and what the page says of where it computed.
_COMPUTED = {
    "distill": "trained on",
    "supervise": "trained on",
    "initialise": "initialised on",
    "embed_task": "embedded on",
    "probe": "scored on",
}
_OF_MACHINE = ("gpu", "gpu_memory", "driver", "cuda", "processes", "processor", "cores", "memory", "machine", "device")


def made_with(source: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """What computed a score: by verb, in the order of the workflow, the names and values of its environment."""
    found = {**source.get("environment_of", {}), "probe": source.get("environment", {})}
    return {verb: found[verb] for verb in _COMPUTED if found.get(verb)}


def machine_text(environment: Mapping[str, str]) -> str:
    """A machine in words: its GPU first, if that computed."""
    said = {
        "gpu": "{}",
        "gpu_memory": "{}",
        "driver": "driver {}",
        "cuda": "CUDA {}",
        "processor": "{}",
        "cores": "{} cores",
        "memory": "{}",
        "machine": "{}",
        "processes": "{} processes",
    }
    return ", ".join(form.format(environment[name]) for name, form in said.items() if name in environment)


def _origins(source: Mapping[str, Any]) -> list[tuple[str, str | Html]]:
    """Where each step to a score was computed, and with which packages it was scored."""
    steps: list[tuple[str, str | Html]] = []
    for verb, environment in made_with(source).items():
        build = f"; torch {environment['torch']}" if "torch" in environment and verb != "probe" else ""
        steps.append((_COMPUTED[verb], f"{machine_text(environment)}{build}" or "–"))
    packages = {k: v for k, v in source.get("environment", {}).items() if k not in _OF_MACHINE}
    return [*steps, ("environment", ", ".join(f"{name} {value}" for name, value in sorted(packages.items())))]


def origin_box(cell: Cell) -> Html:
    """The box that says where a score comes from."""
    body = []
    for source, path in zip(cell.sources, cell.paths, strict=True):
        pairs: list[tuple[str, str | Html]] = [
            ("model", cell.setting.name),
            ("training seed", str(source["model"].get("seed", "–"))),
            ("parameters", f"{source['parameters']:,}" if source.get("parameters") else "–"),
            ("metric", _METRICS.get(cell.metric, cell.metric)),
            ("runs", ", ".join(f"{100 * run:.2f}" for run in source["scores"]) + " %"),
        ]
        if source.get("bootstrap_ci95"):
            low, high = source["bootstrap_ci95"]
            pairs.append(("over test clips", f"{100 * low:.1f} to {100 * high:.1f} % (bootstrap, 95 %)"))
        counts = [f"{source.get(f'n_{part}', 0):,} {part}" for part in ("train", "valid", "test")]
        missing = source.get("n_missing")
        absent = f", {missing:,} missing" if missing else ""
        pairs += [
            ("clips", f"{source.get('n_clips', 0):,} ({', '.join(counts)}){absent}"),
            ("clip list", code(source.get("clip_list_sha256", "–"))),
            ("training clips", code(source.get("training_clip_list_sha256") or "–")),
            ("checkpoint", code(source.get("checkpoint_sha256") or "–")),
            ("embeddings", code(source.get("embeddings_digest", "–"))),
            ("probe", _options_text(source.get("options", {}))),
            ("chosen", _choices(source) or "–"),
            ("protocol", str(source.get("protocol", "–")) + (" (optimistic)" if source.get("optimistic") else "")),
            ("code", code(source.get("code", "–"))),
            *_origins(source),
            ("file", code(path)),
        ]
        body.append(definitions(pairs))
    title = f"{cell.task}: {percent_text(cell.mean, cell.ci95)} %"
    return popover(origin_key(cell), title, join(body[:1] + [Html(f"<hr>{more.text}") for more in body[1:]]))


# Table 1


def _setting_of(line: Mapping[str, str]) -> Setting:
    clusters = line["n_clusters"]
    return Setting(
        line["row_kind"], line["teacher"], line["student"], line["loss"], int(clusters) if clusters else None
    )


def _trained(line: Mapping[str, str]) -> str:
    return f"from {line['teacher']}" if line["row_kind"] == "distilled" else line["row_kind"]


def _entry(line: Mapping[str, str], name: str, unit: str = "") -> Entry:
    """A number of a table that was written as CSV, with the published one."""
    paper = value_of(line.get(f"{name}_published"))
    beside = None if paper is None else Published(paper, value_of(line.get(f"{name}_published_ci95")))
    return Entry(value_of(line.get(name)), value_of(line.get(f"{name}_ci95")), beside, unit)


def _datum(entry: Entry, *, key: str = "", heat: float | None = None) -> Datum:
    """A number over the published one; it opens the box `key` if there is one."""
    text = entry_text(entry)
    beside = published_text(entry, interval=False)
    small = f'<small title="published, in brackets ours less the published one">{beside}</small>' if beside else ""
    shown = join([opener(key, text) if key else Html(text), small])
    return Datum(shown, float("-inf") if entry.mean is None else entry.mean, heat=heat, strong=entry.best)


def _heat(value: float | None, column: Sequence[float | None]) -> float | None:
    """Place of a value between the lowest and the highest of its column, in [0, 1]."""
    known = [other for other in column if other is not None]
    if value is None or max(known) == min(known):
        return None
    return (value - min(known)) / (max(known) - min(known))


def table1_part(lines: Sequence[dict[str, str]], cells: Cells) -> Html:
    """Table 1, each number a button that opens its origin."""
    tasks = [name.removesuffix("_published_ci95") for name in lines[0] if name.endswith("_published_ci95")]
    columns = [*tasks, "average"]
    entries = [{name: _entry(line, name) for name in columns} for line in lines]
    for student in {line["student"] for line in lines} - {""}:
        mine = [of for of, line in zip(entries, lines, strict=True) if line["student"] == student]
        for name in columns:
            mark_best([of[name] for of in mine])
    rows: list[Line] = []
    for line, of in zip(lines, entries, strict=True):
        parameters = value_of(line["parameters"])
        size = f'<small title="parameters">{parameters / 1e6:.2f}M</small>' if parameters else ""
        name = line["student"] or line["teacher"]
        row: Line = [Datum(join([Html(escape(name)), size]), name), _trained(line)]
        for name, entry in of.items():
            cell = cells.get((_setting_of(line), name))
            heat = _heat(entry.mean, [other[name].mean for other in entries])
            row.append(_datum(entry, key=origin_key(cell) if cell and entry.mean is not None else "", heat=heat))
        share = _entry(line, "share_of_teacher", " %")
        share.absent = ""
        row.append(_datum(share))
        rows.append(row)
    return table(["model", "trained", *columns, "of teacher"], rows, labels=2)


def scores_part(cells: Cells) -> Html:
    """Every score, a line each; a number opens its origin."""
    rows: list[Line] = []
    for cell in cells.values():
        setting = cell.setting
        rows.append(
            [
                setting.student or setting.teacher,
                setting.row_kind,
                setting.teacher if setting.row_kind == "distilled" else "",
                setting.loss,
                "" if setting.n_clusters is None else str(setting.n_clusters),
                cell.task,
                cell.metric,
                Datum(opener(origin_key(cell), percent_text(cell.mean, cell.ci95)), cell.mean, cell.mean),
                number(len(cell.runs)),
                number(cell.common("n_clips")),
                number(cell.common("n_missing")),
            ]
        )
    heads = ["model", "row", "teacher", "loss", "clusters", "task", "metric", "score, %", "runs", "clips", "missing"]
    return table(heads, rows, labels=7, search="Filter: model, task, ...", tall=True)


# Table 2 and Fig. 2


def table2_part(path: Path) -> Html:
    """Table 2 from its CSV."""
    names = ["music", "environment", "average"]
    lines = read_table(path)
    entries = [[_entry(line, name) for name in names] for line in lines]
    for column in zip(*entries, strict=True):
        mark_best(column)
    rows: list[Line] = [[line["loss"], *map(_datum, of)] for line, of in zip(lines, entries, strict=True)]
    return table(["loss", *names], rows)


def fig2_part(path: Path) -> Html:
    """Fig. 2 from its CSV, a plot for each task."""
    lines = read_table(path)
    charts = []
    for task in dict.fromkeys(line["task"] for line in lines):
        mine = [line for line in lines if line["task"] == task]
        ours = [line for line in mine if line["mean"]]
        paper = [line for line in mine if line["published"]]
        curves = [
            Series(
                "ours, 95 % interval",
                [float(line["n_clusters"]) for line in ours],
                [float(line["mean"]) for line in ours],
                [value_of(line["ci95"]) or 0.0 for line in ours],
            ),
            Series(
                "published, read off the chart",
                [float(line["n_clusters"]) for line in paper],
                [float(line["published"]) for line in paper],
                dashed=True,
            ),
        ]
        charts.append(line_chart(curves, "clusters (0: clips drawn at random)", f"{task}, per cent"))
    return plots(charts)
