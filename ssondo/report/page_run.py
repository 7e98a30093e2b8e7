"""How a run went, in the report: trainings, clusters, run times, the graph of the rules, versions."""

import csv
import io
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from ssondo.report.charts import Series, bar_chart, line_chart
from ssondo.report.page import (
    Datum,
    Html,
    Line,
    folded,
    join,
    number,
    paragraphs,
    picture,
    plots,
    table,
)
from ssondo.report.page_scores import read_table, value_of
from ssondo.report.rulegraph import graph, without_shortcuts
from ssondo.report.scores import Cells
from ssondo.storage.atomic_files import read_json

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
# Nor do these: what the loss is a weighted sum of.
_LOSS_PART = "loss_"


def training_part(paths: Sequence[Path]) -> Html:
    """How every training ended, and its loss and scores over the epochs."""
    histories = [read_table(path) for path in paths]
    names = _short_names(paths)
    columns_of = [list(lines[0]) if lines else [] for lines in histories]
    known = dict.fromkeys(column for columns in columns_of for column in columns)
    scored = [column for column in known if column not in _NOT_SCORES and not column.startswith(_LOSS_PART)]
    rows: list[Line] = []
    parts = []
    for name, lines, columns in zip(names, histories, columns_of, strict=True):
        of_loss = [column for column in columns if column == "loss" or column.startswith(_LOSS_PART)]
        curves = {column: _curve(lines, column) for column in [*of_loss, *scored] if column in columns}
        speeds = sorted(_curve(lines, "clips_per_s").y) if "clips_per_s" in columns else []
        last = [curves[column].y[-1] if column in curves and curves[column].y else None for column in ["loss", *scored]]
        median = speeds[len(speeds) // 2] if speeds else None
        rows.append([name, number(len(lines)), *(number(value, ".3f") for value in last), number(median)])
        charts = [
            line_chart([curves[column] for column in of_loss], "epoch", "training loss"),
            line_chart([curves[column] for column in scored if column in curves], "epoch", "on eval clips"),
        ]
        parts.append(folded(name, plots(charts), open_=len(paths) <= 4))
    heads = ["training", "epochs", *(column.replace("_", " ") for column in ["loss", *scored]), "clips/s"]
    note = paragraphs(["Loss and scores of the last epoch that has them."])
    return join([table(heads, rows), note, '<div class="pairs">', *parts, "</div>"])


def _curve(lines: Sequence[Mapping[str, str]], column: str) -> Series:
    """A column of a history over the epochs, where it was measured."""
    known = [(float(line["epoch"]), y) for line in lines if (y := value_of(line[column])) is not None]
    # The value of a constant predictor is there to compare with.
    dashed = column.startswith("constant")
    return Series(column.replace("_", " "), [x for x, _ in known], [y for _, y in known], dashed=dashed)


def clusters_part(paths: Sequence[Path]) -> Html:
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
        parts.append(folded(name, plots(charts), open_=len(paths) <= 2))
    heads = ["clustering", "clusters", "clips", "inertia", "silhouette", "Davies-Bouldin", "Calinski-Harabasz"]
    return join([table([*heads, "smallest", "largest"], rows), *parts])


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
        seconds = [s for line in lines if (s := value_of(line.get("s"))) is not None]
        if not seconds:
            continue
        memory = [m for line in lines if (m := value_of(line.get("max_rss"))) is not None]
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


def run_times_part(jobs: Sequence[Job]) -> Html:
    """What every rule and every job took."""
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
    return join([summary, folded(f"All {len(jobs)} jobs", each)])


def graph_part(sources: Mapping[str, Sequence[str]], jobs: Sequence[Job]) -> Html:
    """The graph of the rules, with what they took."""
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
    return join([f'<div class="scroll">{drawing}</div>', paragraphs([note])])


def made_with_part(cells: Cells) -> Html:
    """Versions of code and packages behind the scores, each with the number of scores."""
    sources = [source for cell in cells.values() for source in cell.sources]
    found = Counter((name, str(value)) for source in sources for name, value in source.get("environment", {}).items())
    found.update(
        (f"{name} ({verb})", str(environment[name]))
        for source in sources
        for verb, environment in source.get("environment_of", {}).items()
        for name in ("gpu", "processor", "torch")
        if name in environment
    )
    found.update(("code of the probe", str(source.get("code", "–"))) for source in sources)
    rows: list[Line] = [[name, value, number(count)] for (name, value), count in sorted(found.items())]
    return table(["what", "version", "scores"], rows, labels=2)
