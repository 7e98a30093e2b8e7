"""The sections about scores: Table 1, Table 2, Fig. 2, all scores, versions, and the origin of each number."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from ssondo.probe.model_id import ModelId
from ssondo.report.line_chart import line_chart
from ssondo.report.page import Cell, PageTable, Section, number
from ssondo.report.score_table import Row, Table, TableCell, score_cell
from ssondo.report.scores import TaskScore, TaskScores

_METRICS = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "masked_map": "mean average precision over known labels",
}
# Label of the machine that each verb ran on, in the order of the workflow.
_VERBS = {
    "distill": "trained on",
    "supervise": "trained on",
    "initialise": "initialised on",
    "embed_task": "embedded on",
    "probe": "scored on",
}
# How each property of a machine is written; a GPU comes first, since it did the computing.
_MACHINE = {
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


def origin_key(model: ModelId, task: str) -> str:
    """Return the id of the box with the origin of a score."""
    parts = [model.row_kind, model.teacher, model.student, model.loss, str(model.n_clusters), task]
    return "origin-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts)


def _chosen(content: Mapping[str, Any]) -> str:
    """Return the grid points that were selected, each with its number of runs."""
    points = Counter(
        f"rate {point['learning_rate']:g}, decay {point['weight_decay']:g}, batch {point['batch_size']}"
        for split in content.get("splits", [])
        for point in split.get("chosen", [])
    )
    return "; ".join(f"{point} ({n}x)" for point, n in points.most_common())


def _machine_text(environment: Mapping[str, str]) -> str:
    return ", ".join(text.format(environment[name]) for name, text in _MACHINE.items() if name in environment)


def _computed_on(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the machine of each step to a score, and the packages that computed the score."""
    environments = {**content.get("environment_of", {}), "probe": content.get("environment", {})}
    lines = {}
    for verb, label in _VERBS.items():
        environment = environments.get(verb)
        if environment:
            torch = f"; torch {environment['torch']}" if "torch" in environment and verb != "probe" else ""
            lines[label] = f"{_machine_text(environment)}{torch}" or "–"
    packages = {k: v for k, v in environments["probe"].items() if k not in (*_MACHINE, "device")}
    return lines | {"environment": ", ".join(f"{name} {version}" for name, version in sorted(packages.items()))}


def origin(score: TaskScore) -> dict[str, Any]:
    """Return the origin of a score: the id and title of its box in the page, and the content of each score file."""
    files = []
    for file in score.files:
        content = file.content
        bootstrap = [100 * limit for limit in content.get("bootstrap_ci95") or []]
        counts = [f"{content.get(f'n_{split}', 0):,} {split}" for split in ("train", "valid", "test")]
        missing = f", {content['n_missing']:,} missing" if content.get("n_missing") else ""
        options = [f"{name} {json.dumps(value)}" for name, value in sorted(content.get("options", {}).items())]
        values = {
            "model": score.model.name,
            "training seed": str(content["model"].get("seed", "–")),
            "parameters": f"{content['parameters']:,}" if content.get("parameters") else "–",
            "metric": _METRICS.get(score.metric, score.metric),
            "runs": ", ".join(f"{100 * run:.2f}" for run in content["scores"]) + " %",
            "over test clips": "{:.1f} to {:.1f} % (bootstrap, 95 %)".format(*bootstrap) if bootstrap else "",
            "clips": f"{content.get('n_clips', 0):,} ({', '.join(counts)}){missing}",
            "clip list": content.get("clip_list_sha256") or "–",
            "training clips": content.get("training_clip_list_sha256") or "–",
            "checkpoint": content.get("checkpoint_sha256") or "–",
            "embeddings": content.get("embeddings_digest") or "–",
            "probe": ", ".join(options),
            "chosen": _chosen(content) or "–",
            "protocol": str(content.get("protocol", "–")) + (" (optimistic)" if content.get("optimistic") else ""),
            "code": content.get("code") or "–",
            **_computed_on(content),
            "file": str(file.path),
        }
        files.append({name: value for name, value in values.items() if value or name != "over test clips"})
    title = f"{score.task}: {score_cell(score).text} %"
    return {"key": origin_key(score.model, score.task), "title": title, "files": files}


def _table_cell(cell: TableCell, *, opens: str = "", heat: float | None = None) -> Cell:
    """Return the cell of a number, with the published one below it."""
    return Cell(
        cell.text,
        float("-inf") if cell.mean is None else cell.mean,
        heat=heat,
        strong=cell.best,
        opens=opens,
        small=cell.published_text(interval=False),
        small_title="published, in brackets ours minus the published one",
    )


def _heat(value: float | None, column: Sequence[float | None]) -> float | None:
    """Return the position of a value between the lowest and the highest of its column, in [0, 1]."""
    present = [other for other in column if other is not None]
    if value is None or max(present) == min(present):
        return None
    return (value - min(present)) / (max(present) - min(present))


def table1_section(table: Table, scores: TaskScores, remarks: Sequence[str]) -> Section:
    """Return the section of Table 1, in which each number opens its origin; `remarks` are further notes."""
    columns = [[row.cells[i].mean for row in table.rows] for i in range(len(table.columns) - 1)]
    notes = ["Per cent, mean ± 95 % interval over runs; bold: best of each student; a number opens its origin."]
    if any(cell.published is not None for row in table.rows for cell in row.cells):
        notes.append(
            "Small: the published number, in brackets ours minus it; ≠: the two 95 % intervals do not overlap."
        )

    def cells(row: Row) -> list[Cell | str]:
        name, training, size = row.labels
        size = size if row.ids["parameters"] else ""
        line: list[Cell | str] = [Cell(name, name, small=size, small_title="parameters"), training]
        for column, cell, means in zip(table.columns, row.cells, columns, strict=False):
            scored = row.model is not None and (row.model, column.name) in scores
            opens = origin_key(row.model, column.name) if row.model and scored else ""
            line.append(_table_cell(cell, opens=opens, heat=_heat(cell.mean, means)))
        share = row.cells[-1]
        return [*line, _table_cell(share) if share.mean is not None else Cell("", float("-inf"))]

    heads = ["model", "trained", *(column.head for column in table.columns)]
    page_table = PageTable(heads, [cells(row) for row in table.rows], n_labels=2)
    return Section("Table 1", "table1", table=page_table, notes=[*notes, *remarks])


def table2_section(table: Table) -> Section:
    """Return the section of Table 2."""
    heads = [*table.label_heads, *(column.head for column in table.columns)]
    rows: list[list[Cell | str]] = [[*row.labels, *map(_table_cell, row.cells)] for row in table.rows]
    return Section("Table 2: losses", "table2", table=PageTable(heads, rows))


def fig2_section(table: Table) -> Section:
    """Return the section of Fig. 2 with a chart for each task."""
    import pandas as pd

    charts = []
    for i, column in enumerate(table.columns):
        cells = [row.cells[i] for row in table.rows]
        paper = "published (read off the chart)"
        values = pd.DataFrame(
            {"ours": [cell.mean for cell in cells], paper: [cell.published for cell in cells]},
            index=pd.Index([row.ids["n_clusters"] for row in table.rows], name="clusters"),
        )
        half_widths = pd.DataFrame({"ours": [cell.ci95 for cell in cells]}, index=values.index)
        charts.append(line_chart(f"{column.head}, per cent", values, half_widths=half_widths, dashed=[paper]))
    notes = ["Bands: 95 % intervals over runs.", *table.notes]
    return Section("Fig. 2: number of clusters", "fig2", charts=[chart for chart in charts if chart], notes=notes)


def scores_section(scores: TaskScores) -> Section:
    """Return the section with all scores, one in each row; each opens its origin."""
    rows: list[list[Cell | str]] = []
    for score in scores.values():
        model = score.model
        distilled = model.row_kind == "distilled"
        rows.append(
            [
                model.student or model.teacher,
                model.row_kind,
                model.teacher if distilled else "",
                model.loss,
                str(model.n_clusters) if distilled else "",
                score.task,
                score.metric,
                Cell(score_cell(score).text, score.mean, score.mean, opens=origin_key(model, score.task)),
                number(len(score.runs)),
                number(score.common("n_clips")),
                number(score.common("n_missing")),
            ]
        )
    heads = ["model", "row", "teacher", "loss", "clusters", "task", "metric", "score, %", "runs", "clips", "missing"]
    table = PageTable(heads, rows, n_labels=7, search="Filter: model, task, ...")
    return Section("All scores", "scores", table=table)


def versions_section(scores: TaskScores) -> Section:
    """Return the section with the versions of code and packages, each with the number of scores made with it."""
    contents = [file.content for score in scores.values() for file in score.files]
    versions = Counter((name, str(v)) for content in contents for name, v in content.get("environment", {}).items())
    versions.update(
        (f"{name} ({verb})", str(environment[name]))
        for content in contents
        for verb, environment in content.get("environment_of", {}).items()
        for name in ("gpu", "processor", "torch")
        if name in environment
    )
    versions.update(("code of the probe", str(content.get("code", "–"))) for content in contents)
    rows = [[name, value, number(n)] for (name, value), n in sorted(versions.items())]
    return Section("Made with", "made", table=PageTable(["what", "version", "scores"], rows, n_labels=2))
