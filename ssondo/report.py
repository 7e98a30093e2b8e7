"""The results of a run on one page that opens anywhere, with no network: tables, curves, run times, origins."""

import csv
import io
import json
import logging
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

from ssondo.artefacts import read_json, write_text
from ssondo.charts import Series, bar_chart, line_chart
from ssondo.errors import SsondoError
from ssondo.page import (
    Datum,
    Html,
    Line,
    Section,
    definitions,
    folded,
    number,
    opener,
    page,
    paragraphs,
    picture,
    popover,
    table,
)
from ssondo.rulegraph import graph, without_shortcuts
from ssondo.scores import Cell, Cells, Setting, read_scores, remarks
from ssondo.tables import Entry, Published, entry_text, mark_best, published_text

log = logging.getLogger(__name__)

_METRICS = {
    "accuracy": "accuracy",
    "map": "mean average precision",
    "masked_map": "mean average precision over known labels",
}


def _read_csv(path: Path) -> list[dict[str, str]]:
    try:
        return list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    except FileNotFoundError:
        raise SsondoError(f"{path}: no such file; make it with: snakemake {path}") from None


def _value(text: str | None) -> float | None:
    """A number of a CSV, None where it is empty or no number."""
    try:
        return float(text) if text else None
    except ValueError:
        return None


def _join(parts: Iterable[Html | str]) -> Html:
    return Html("".join(part.text if isinstance(part, Html) else part for part in parts))


def _plots(parts: Iterable[Html | str]) -> Html:
    return Html(f'<div class="plots">{_join(parts).text}</div>')


def _percent(mean: float, ci95: float | None) -> str:
    return f"{100 * mean:.1f}" + (f" ± {100 * ci95:.1f}" if ci95 is not None else "")


# Where a number comes from


def _key(cell: Cell) -> str:
    """The name of a cell's box in the page."""
    setting = cell.setting
    parts = [setting.row_kind, setting.teacher, setting.student, setting.loss, str(setting.n_clusters), cell.task]
    return "origin-" + "-".join("".join(c if c.isalnum() else "_" for c in part) for part in parts)


def _code(value: Any) -> Html:
    return Html(f"<code>{escape(str(value))}</code>")


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


def _origin(cell: Cell) -> Html:
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
            ("clip list", _code(source.get("clip_list_sha256", "–"))),
            ("checkpoint", _code(source.get("checkpoint_sha256") or "–")),
            ("embeddings", _code(source.get("embeddings_digest", "–"))),
            ("probe", _options_text(source.get("options", {}))),
            ("chosen", _choices(source) or "–"),
            ("protocol", str(source.get("protocol", "–")) + (" (optimistic)" if source.get("optimistic") else "")),
            ("code", _code(source.get("code", "–"))),
            ("environment", ", ".join(f"{k} {v}" for k, v in sorted(source.get("environment", {}).items()))),
            ("file", _code(path)),
        ]
        body.append(definitions(pairs))
    title = f"{cell.task}: {_percent(cell.mean, cell.ci95)} %"
    return popover(_key(cell), title, _join(body[:1] + [Html(f"<hr>{more.text}") for more in body[1:]]))


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
    paper = _value(line.get(f"{name}_published"))
    beside = None if paper is None else Published(paper, _value(line.get(f"{name}_published_ci95")))
    return Entry(_value(line.get(name)), _value(line.get(f"{name}_ci95")), beside, unit)


def _datum(entry: Entry, *, key: str = "", heat: float | None = None) -> Datum:
    """A number over the published one; it opens the box `key` if there is one."""
    text = entry_text(entry)
    beside = published_text(entry, interval=False)
    small = f'<small title="published, in brackets ours less the published one">{beside}</small>' if beside else ""
    shown = _join([opener(key, text) if key else Html(text), small])
    return Datum(shown, float("-inf") if entry.mean is None else entry.mean, heat=heat, strong=entry.best)


def _heat(value: float | None, column: Sequence[float | None]) -> float | None:
    """Place of a value between the lowest and the highest of its column, in [0, 1]."""
    known = [other for other in column if other is not None]
    if value is None or max(known) == min(known):
        return None
    return (value - min(known)) / (max(known) - min(known))


def _table1(lines: Sequence[dict[str, str]], cells: Cells) -> Html:
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
        parameters = _value(line["parameters"])
        size = f'<small title="parameters">{parameters / 1e6:.2f}M</small>' if parameters else ""
        name = line["student"] or line["teacher"]
        row: Line = [Datum(_join([Html(escape(name)), size]), name), _trained(line)]
        for name, entry in of.items():
            cell = cells.get((_setting_of(line), name))
            heat = _heat(entry.mean, [other[name].mean for other in entries])
            row.append(_datum(entry, key=_key(cell) if cell and entry.mean is not None else "", heat=heat))
        share = _entry(line, "share_of_teacher", " %")
        share.absent = ""
        row.append(_datum(share))
        rows.append(row)
    return table(["model", "trained", *columns, "of teacher"], rows, labels=2)


def _headline(lines: Sequence[dict[str, str]]) -> str:
    """The result in a sentence; empty where no student has a share of its teacher."""
    shares = [(share, line) for line in lines if (share := _value(line["share_of_teacher"])) is not None]
    if not shares:
        return ""
    share, line = max(shares, key=lambda pair: pair[0])
    teacher = next((t for t in lines if t["row_kind"] == "teacher" and t["teacher"] == line["teacher"]), None)
    small, large = _value(line["parameters"]), _value(teacher["parameters"]) if teacher else None
    size = f" with {small / 1e6:.2f} of its {large / 1e6:.2f} million parameters" if small and large else ""
    text = f"{line['student']} reaches {share:.1f} % of the average of {line['teacher']}{size}"
    others = [
        f"{other['row_kind']} {average:.1f}"
        for other in lines
        if other["student"] == line["student"]
        and other["row_kind"] != "distilled"
        and (average := _value(other["average"])) is not None
    ]
    average = _value(line["average"])
    beside = f" (average {average:.1f}; {', '.join(others)})" if average is not None and others else ""
    return f"{text}{beside}."


def _every_score(cells: Cells) -> Html:
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
                Datum(opener(_key(cell), _percent(cell.mean, cell.ci95)), cell.mean, cell.mean),
                number(len(cell.runs)),
                number(cell.common("n_clips")),
                number(cell.common("n_missing")),
            ]
        )
    heads = ["model", "row", "teacher", "loss", "clusters", "task", "metric", "score, %", "runs", "clips", "missing"]
    return table(heads, rows, labels=7, search="Filter: model, task, ...", tall=True)


# Table 2 and Fig. 2


def _table2(path: Path) -> Html:
    names = ["music", "environment", "average"]
    lines = _read_csv(path)
    entries = [[_entry(line, name) for name in names] for line in lines]
    for column in zip(*entries, strict=True):
        mark_best(column)
    rows: list[Line] = [[line["loss"], *map(_datum, of)] for line, of in zip(lines, entries, strict=True)]
    return table(["loss", *names], rows)


def _fig2(path: Path) -> Html:
    lines = _read_csv(path)
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
                [_value(line["ci95"]) or 0.0 for line in ours],
            ),
            Series(
                "published, read off the chart",
                [float(line["n_clusters"]) for line in paper],
                [float(line["published"]) for line in paper],
                dashed=True,
            ),
        ]
        charts.append(line_chart(curves, "clusters (0: clips drawn at random)", f"{task}, per cent"))
    return _plots(charts)


# Training and clusters


def _short_names(paths: Sequence[Path]) -> list[str]:
    """What tells the paths apart: their folders without those that all share."""
    folders = [path.parent.parts for path in paths]
    if len(folders) < 2:
        return [" ".join(parts[-4:]) for parts in folders]
    shared = len(Path(os.path.commonpath([str(path.parent) for path in paths])).parts) if folders[0] else 0
    return [" ".join(parts[shared:]) or parts[-1] for parts in folders]


# How the training ran, not what it reached.
_NOT_SCORES = {
    "epoch",
    "step",
    "loss",
    "learning_rate",
    "gradient_norm",
    "clips_per_s",
    "wait_share",
    "temperature",
    "seconds",
}


def _training(paths: Sequence[Path]) -> Html:
    """How every training ended, and its loss and scores over the epochs."""
    histories = [_read_csv(path) for path in paths]
    names = _short_names(paths)
    scored = list(dict.fromkeys(c for lines in histories if lines for c in lines[0] if c not in _NOT_SCORES))
    rows: list[Line] = []
    parts = []
    for name, lines in zip(names, histories, strict=True):
        columns = list(lines[0]) if lines else []
        curves = {column: _curve(lines, column) for column in ["loss", *scored] if column in columns}
        speeds = sorted(_curve(lines, "clips_per_s").y) if "clips_per_s" in columns else []
        last = [curves[column].y[-1] if column in curves and curves[column].y else None for column in ["loss", *scored]]
        median = speeds[len(speeds) // 2] if speeds else None
        rows.append([name, number(len(lines)), *(number(value, ".3f") for value in last), number(median)])
        charts = [
            line_chart([curves["loss"]] if "loss" in curves else [], "epoch", "training loss"),
            line_chart([curves[column] for column in scored if column in curves], "epoch", "on eval clips"),
        ]
        parts.append(folded(name, _plots(charts), open_=len(paths) <= 4))
    heads = ["training", "epochs", *(column.replace("_", " ") for column in ["loss", *scored]), "clips/s"]
    note = paragraphs(["Loss and scores of the last epoch that has them."])
    return _join([table(heads, rows), note, '<div class="pairs">', *parts, "</div>"])


def _curve(lines: Sequence[Mapping[str, str]], column: str) -> Series:
    """A column of a history over the epochs, where it was measured."""
    known = [(float(line["epoch"]), y) for line in lines if (y := _value(line[column])) is not None]
    # The value of a constant predictor is there to compare with.
    dashed = column.startswith("constant")
    return Series(column.replace("_", " "), [x for x, _ in known], [y for _, y in known], dashed=dashed)


def _clusters(paths: Sequence[Path]) -> Html:
    """Separation, sizes and map of every clustering."""
    rows: list[Line] = []
    parts = []
    for path, name in zip(paths, _short_names(paths), strict=True):
        metrics = read_json(path)
        sizes = metrics.get("cluster_sizes", {}).get("each", [])
        rows.append(
            [
                name,
                number(metrics.get("settings", {}).get("n_clusters") or len(sizes)),
                number(metrics.get("n_clips")),
                number((metrics.get("inertia") or {}).get("mean"), ",.4g"),
                number(metrics.get("silhouette"), ".3f"),
                number(metrics.get("davies_bouldin"), ".2f"),
                number(metrics.get("calinski_harabasz"), ",.0f"),
                number(min(sizes, default=None)),
                number(max(sizes, default=None)),
            ]
        )
        charts: list[Html | str] = [
            bar_chart(sorted(sizes, reverse=True), "cluster, largest first", f"{name}: training clips of each cluster")
        ]
        tsne = path.with_name("tsne.png")
        if tsne.is_file():
            charts.append(picture(tsne, f"{name}: t-SNE of training clips"))
        parts.append(folded(name, _plots(charts), open_=len(paths) <= 2))
    heads = ["clustering", "clusters", "clips", "inertia", "silhouette", "Davies-Bouldin", "Calinski-Harabasz"]
    return _join([table([*heads, "smallest", "largest"], rows), *parts])


# How it ran


@dataclass(frozen=True)
class Job:
    """The run time of one job.

    Attributes:
        rule: name.
        wildcards: what the job was for, as in its path.
        seconds: of the wall clock.
        max_rss_mb: most memory in MB; None where Snakemake could not measure it.
    """

    rule: str
    wildcards: str
    seconds: float
    max_rss_mb: float | None


def read_benchmarks(folder: Path) -> list[Job]:
    """Run times from Snakemake's benchmark files, `{rule}/{wildcards}.tsv`; what is not there is left out."""
    jobs = []
    for path in sorted(folder.rglob("*.tsv")):
        lines = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8")), delimiter="\t"))
        seconds = [s for line in lines if (s := _value(line.get("s"))) is not None]
        if not seconds:
            continue
        memory = [m for line in lines if (m := _value(line.get("max_rss"))) is not None]
        rule, *rest = path.relative_to(folder).with_suffix("").parts
        jobs.append(Job(rule, "/".join(rest), sum(seconds), max(memory, default=None)))
    return jobs


def duration(seconds: float) -> str:
    """Seconds as a person says them: "42 s", "3 min 20 s", "5 h 12 min"."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.1f} s" if seconds < 10 else f"{whole} s"
    minutes, rest = divmod(whole, 60)
    if minutes < 60:
        return f"{minutes} min {rest} s"
    return f"{minutes // 60:,} h {minutes % 60} min"


def _time(seconds: float, longest: float) -> Datum:
    return Datum(duration(seconds), seconds, seconds / (longest or 1.0))


def _run_times(jobs: Sequence[Job]) -> Html:
    rules: dict[str, list[Job]] = {}
    for job in jobs:
        rules.setdefault(job.rule, []).append(job)
    totals = {rule: sum(job.seconds for job in of) for rule, of in rules.items()}
    longest = max(totals.values())
    rows: list[Line] = []
    for rule, total in sorted(totals.items(), key=lambda item: -item[1]):
        memory = [job.max_rss_mb for job in rules[rule] if job.max_rss_mb is not None]
        slowest = max(rules[rule], key=lambda job: job.seconds)
        rows.append(
            [
                rule,
                number(len(rules[rule])),
                _time(total, longest),
                Datum(duration(slowest.seconds), slowest.seconds),
                number(max(memory, default=None)),
            ]
        )
    top = max(job.seconds for job in jobs)
    each = table(
        ["rule", "for", "time", "MB"],
        [
            [
                job.rule,
                job.wildcards,
                Datum(duration(job.seconds), job.seconds, job.seconds / top),
                number(job.max_rss_mb),
            ]
            for job in sorted(jobs, key=lambda job: -job.seconds)
        ],
        labels=2,
        search="Filter: rule, model, ...",
        tall=True,
    )
    summary = table(["rule", "jobs", "time of all", "longest job", "most MB"], rows)
    return _join([summary, folded(f"All {len(jobs)} jobs", each)])


def _graph(sources: Mapping[str, Sequence[str]], jobs: Sequence[Job]) -> Html:
    edges = [(source, rule) for rule, found in sources.items() for source in found]
    nodes = list(dict.fromkeys(rule for edge in edges for rule in edge))
    counts, times = Counter(job.rule for job in jobs), Counter[str]()
    for job in jobs:
        times[job.rule] += job.seconds  # type: ignore[assignment]
    said = {
        rule: f"{n} job{'s' if n > 1 else ''}, {duration(times[rule])}" for rule, n in counts.items() if rule in nodes
    }
    try:
        drawing = graph(nodes, without_shortcuts(edges), said)
    except ValueError:
        return paragraphs(["The rules depend on each other in a circle, which has no drawing in layers."])
    note = "An arrow is left out where a longer way leads to the same rule."
    return _join([f'<div class="scroll">{drawing}</div>', paragraphs([note])])


def _availability(paths: Sequence[Path]) -> Html:
    rows: list[Line] = []
    reasons: list[Line] = []
    for path in paths:
        found = read_json(path)
        name = "/".join(path.with_suffix("").parts[-3:])
        n, n_ok = found.get("n_clips", 0), found.get("n_ok", 0)
        there = n_ok / n if n else 0.0
        rows.append(
            [
                name,
                number(n),
                Datum(f"{n_ok:,}", n_ok, there),
                number(100 * there, ".1f"),
                number(n - n_ok),
                number(len(found.get("shards", []))),
                Datum(_code(found.get("clip_list_sha256", "–")[:16])),
            ]
        )
        for status, counted in sorted(found.get("reasons", {}).items()):
            for reason, count in sorted(counted.items(), key=lambda item: -item[1]):
                reasons.append([name, status.lower(), reason, number(count)])
    parts = [table(["shards of", "clips", "there", "per cent", "missing", "shards", "clip list"], rows)]
    if reasons:
        listed = table(["shards of", "status", "reason", "clips"], reasons, labels=3, search="Filter: reason, ...")
        parts.append(folded("Reasons", listed, open_=len(reasons) <= 12))
    return _join(parts)


def _made_with(cells: Cells) -> Html:
    """Versions of code and packages behind the scores, each with the number of scores."""
    sources = [source for cell in cells.values() for source in cell.sources]
    found = Counter((name, str(value)) for source in sources for name, value in source.get("environment", {}).items())
    found.update(("code of the probe", str(source.get("code", "–"))) for source in sources)
    rows: list[Line] = [[name, value, number(count)] for (name, value), count in sorted(found.items())]
    return table(["what", "version", "scores"], rows, labels=2)


def _tiles(values: Iterable[tuple[str, str]]) -> Html:
    tiles = "".join(f'<div class="tile"><b>{escape(v)}</b><span>{escape(k)}</span></div>' for k, v in values)
    return Html(f'<div class="tiles">{tiles}</div>')


def _lead(lines: Sequence[dict[str, str]], cells: Cells, jobs: Sequence[Job], inventories: Sequence[Path]) -> Html:
    tiles = [
        ("models", f"{len({setting for setting, _ in cells})}"),
        ("downstream tasks", f"{len({task for _, task in cells})}"),
        ("probe runs", f"{sum(len(cell.runs) for cell in cells.values()):,}"),
    ]
    clips = [read_json(path).get("n_ok", 0) for path in inventories if path.stem == "train"]
    if clips:
        # The same clips are counted after every stage; the last stage has the fewest.
        tiles.append(("training clips", f"{min(clips):,}"))
    if jobs:
        tiles.append(("time of all jobs", duration(sum(job.seconds for job in jobs))))
    headline = _headline(lines)
    return _join([f'<p class="headline">{escape(headline)}</p>' if headline else "", _tiles(tiles)])


def report(
    *,
    title: str,
    table1: Path,
    scores: list[Path],
    benchmarks: Path,
    out: Path,
    clusters: list[Path] | None = None,
    histories: list[Path] | None = None,
    inventories: list[Path] | None = None,
    rulegraph: dict[str, Any] | None = None,
    table2: Path | None = None,
    fig2: Path | None = None,
    config: dict[str, Any] | None = None,
) -> None:
    """Write all results on one page that opens without a network.

    Args:
        title: heading of the page.
        table1: CSV that table1 wrote.
        scores: files that probe wrote; every number opens what its file says about it.
        benchmarks: folder of Snakemake's run times, {rule}/{wildcards}.tsv; may be absent in part.
        out: the page, HTML.
        clusters: metrics that cluster wrote; tsne.png is taken from the same folder.
        histories: CSV of every training.
        inventories: JSON that inventory wrote.
        rulegraph: as JSON: each rule and the rules whose files it reads.
        table2: CSV that table2 wrote.
        fig2: CSV that fig2 wrote.
        config: as JSON: the settings of the run, shown as they are.
    """
    lines = _read_csv(table1)
    if not lines:
        raise SsondoError(f"{table1}: no line in it; make it again with: snakemake --force {table1}")
    cells = read_scores(scores)
    jobs = read_benchmarks(benchmarks)
    note = "Per cent, mean ± 95 % interval over runs; bold: the best of a student; a number opens its origin."
    beside = "Small: the published number, in brackets ours less it; ≠: the two 95 % intervals do not overlap."
    paper = [beside] if any(line[name] for line in lines for name in line if name.endswith("_published")) else []
    notes = paragraphs([note, *paper, *remarks(cells.values())])
    sections = [Section("table1", "Table 1", _join([_table1(lines, cells), notes]))]
    if table2:
        sections.append(Section("table2", "Table 2: losses", _table2(table2)))
    if fig2:
        sections.append(Section("fig2", "Fig. 2: number of clusters", _fig2(fig2)))
    sections.append(Section("scores", "All scores", _every_score(cells)))
    if histories:
        sections.append(Section("training", "Training", _training(histories)))
    if clusters:
        sections.append(Section("clusters", "Clusters", _clusters(clusters)))
    if inventories:
        sections.append(Section("availability", "Clips", _availability(inventories)))
    if rulegraph:
        sections.append(Section("rules", "Rules", _graph(rulegraph, jobs)))
    if jobs:
        sections.append(Section("times", "Run times", _run_times(jobs)))
    made = [_made_with(cells)]
    if config:
        text = escape(json.dumps(config, indent=2))
        made.append(folded("Settings of the run", Html(f'<div class="scroll"><pre><code>{text}</code></pre></div>')))
    boxes = [_origin(cell) for cell in cells.values()]
    sections.append(Section("made", "Made with", _join([*made, *boxes])))
    write_text(out, page(title, _lead(lines, cells, jobs, inventories or []), sections))
    log.info("report: %d sections, %d scores -> %s (open it in a browser)", len(sections), len(scores), out)
