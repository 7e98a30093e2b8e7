"""The sections about the run: trainings, clusters, clips of the corpus, and run times."""

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from ssondo.errors import SsondoError
from ssondo.report.line_chart import line_chart
from ssondo.report.page import Cell, PageTable, Section, duration_cell, number, short_names
from ssondo.storage.atomic_files import read_json

if TYPE_CHECKING:
    import pandas as pd

# Tables of at most this many rows are unfolded at first.
_FEW_ROWS = 12
# Columns of a training's history that are not a measure of its quality, like the parts of its loss, "loss_...".
_NOT_SCORES = ("epoch", "step", "loss", "learning_rate", "gradient_norm", "clips_per_s", "wait_share", "seconds")


def _read_csv(path: Path) -> "pd.DataFrame":
    import pandas as pd

    try:
        return pd.read_csv(path, keep_default_na=False, na_values=[""])
    except (FileNotFoundError, pd.errors.EmptyDataError):
        raise SsondoError(f"{path}: this file is missing or empty; make it with: snakemake {path}") from None


def training_section(paths: Sequence[Path]) -> Section:
    """Return the section with the last epoch and the curves of each training, from its history as CSV."""
    histories = [_read_csv(path) for path in paths]
    columns = dict.fromkeys(str(column) for history in histories for column in history)
    losses = [column for column in columns if column == "loss" or column.startswith("loss_")]
    scores = [column for column in columns if column not in _NOT_SCORES and column not in losses]
    rows: list[list[Cell | str]] = []
    panels = []
    for name, history in zip(short_names(paths), histories, strict=True):
        measured = {column: history[column].dropna() for column in history}
        last = {column: values.iloc[-1] for column, values in measured.items() if len(values)}
        speed = float(measured["clips_per_s"].quantile(0.5, "higher")) if "clips_per_s" in last else None
        values = [number(last.get(column), ".3f") for column in ("loss", *scores)]
        rows.append([name, number(len(history)), *values, number(speed)])
        by_epoch = history.set_index("epoch")
        charts = [
            # The score of a constant predictor is a reference, not a result.
            line_chart(
                title,
                by_epoch.filter(names, axis=1).rename(columns=_words),
                dashed=[_words(column) for column in names if column.startswith("constant")],
            )
            for title, names in (("training loss", losses), ("on eval clips", scores))
        ]
        panels.append(Section(name, is_open=len(paths) <= 4, charts=[chart for chart in charts if chart]))
    heads = ["training", "epochs", *map(_words, ("loss", *scores)), "clips/s"]
    notes = ["Loss and scores are those of the last epoch that has them."]
    return Section("Training", "training", table=PageTable(heads, rows), notes=notes, panels=panels)


def _words(column: str) -> str:
    return column.replace("_", " ")


def clusters_section(paths: Sequence[Path]) -> Section:
    """Return the section with each clustering, from its metrics as JSON and the pictures in the same folder."""
    rows: list[list[Cell | str]] = []
    panels = []
    for path, name in zip(paths, short_names(paths), strict=True):
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
                number(metrics.get("calinski_harabasz")),
                number(min(sizes, default=None)),
                number(max(sizes, default=None)),
            ]
        )
        captions = {
            "sizes.png": f"{name}: training clips of each cluster",
            "tsne.png": f"{name}: t-SNE of training clips",
        }
        pictures = [(caption, path.with_name(file)) for file, caption in captions.items()]
        present = [(caption, picture) for caption, picture in pictures if picture.is_file()]
        panels.append(Section(name, is_open=len(paths) <= 2, pictures=present))
    heads = ["clustering", "clusters", "clips", "inertia", "silhouette", "Davies-Bouldin", "Calinski-Harabasz"]
    table = PageTable([*heads, "smallest", "largest"], rows)
    return Section("Clusters", "clusters", table=table, panels=panels)


# Clips of the corpus


def read_availability(folder: Path) -> dict[str, dict[str, Any]]:
    """Return what `availability` counted for each split, training clips first."""
    counts = read_json(folder / "availability.json")
    return {split: counts[split] for split in ("train", "eval")}


def _available(n_ok: int, n_listed: int) -> list[Cell]:
    """Return the cells of the number of available clips and of their percentage, a dash if no clip is listed."""
    share = n_ok / n_listed if n_listed else None
    return [number(n_ok, bar=share), number(None if share is None else 100 * share, ".1f")]


def clips_section(folder: Path) -> Section:
    """Return the section with the clips of the corpus, from the folder that `availability` wrote to."""
    splits = read_availability(folder)
    heads = ["split", "listed", "available", "per cent", "unavailable", "failed", "clip list"]
    rows: list[list[Cell | str]] = [
        [
            split,
            number(counts["n_listed"]),
            *_available(counts["n_ok"], counts["n_listed"]),
            number(counts["n_unavailable"]),
            number(counts["n_failed"]),
            Cell(counts["clip_list_sha256"][:16], code=True),
        ]
        for split, counts in splits.items()
    ]
    reasons = _reasons_panel(splits)
    note = "'unavailable' is final, 'failed' may be temporary; ssondo retry requests the clips of a reason again."
    return Section(
        "Clips",
        "availability",
        table=PageTable(heads, rows),
        notes=[note] if reasons else [],
        pictures=[("What is missing, and of which classes", folder / "availability.png")],
        panels=[*reasons, *_class_panels(folder, splits)],
    )


def _reasons_panel(splits: Mapping[str, Mapping[str, Any]]) -> list[Section]:
    rows: list[list[Cell | str]] = []
    for split, counts in splits.items():
        reasons = [(n, status, reason) for status, by in counts["reasons"].items() for reason, n in by.items()]
        for n, status, reason in sorted(reasons, key=lambda item: (-item[0], item[2])):
            share = n / counts["n_listed"]
            rows.append([reason, split, status.lower(), number(n), number(100 * share, ".2f", share)])
    heads = ["reason", "split", "status", "clips", "% of the split"]
    table = PageTable(heads, rows, n_labels=3, search="Filter: reason, split, ...")
    return [Section("Reasons", is_open=len(rows) <= _FEW_ROWS, table=table)] if rows else []


def _class_panels(folder: Path, splits: Mapping[str, Any]) -> list[Section]:
    """Return a panel for each split with its classes, the class with the lowest share of available clips first."""
    classes = _read_csv(folder / "availability.csv")
    classes["name"] = classes["display_name"].fillna(classes["mid"])
    panels = []
    for split in splits:
        counts = classes[classes[f"{split}_listed"] > 0]
        share = counts[f"{split}_available"] / counts[f"{split}_listed"]
        counts = counts.assign(share=share).sort_values(["share", "mid"])
        columns = [counts[f"{split}_{what}"].tolist() for what in ("listed", "available", "unavailable", "failed")]
        rows = [
            [name, number(listed), *_available(available, listed), number(unavailable), number(failed)]
            for name, listed, available, unavailable, failed in zip(counts["name"], *columns, strict=True)
        ]
        if rows:
            heads = ["class", "listed", "available", "per cent", "unavailable", "failed"]
            table = PageTable(heads, rows, search="Filter: class")
            title = f"Classes of the {split} clips, the one that lost most first: {len(rows)}"
            panels.append(Section(title, is_open=len(rows) <= _FEW_ROWS, table=table))
    return panels


# Run times


class Job(NamedTuple):
    """The run time of one job; its peak memory is None if Snakemake could not measure it."""

    rule: str
    wildcards: str
    seconds: float
    max_rss_mb: float | None


def read_benchmarks(folder: Path) -> list[Job]:
    """Read run times from Snakemake's benchmark files, `{rule}/{wildcards}.tsv`; incomplete files are left out."""

    def numbers(lines: Sequence[Mapping[str, str]], column: str) -> list[float]:
        return [float(line[column]) for line in lines if line.get(column) not in (None, "", "-", "NA")]

    jobs = []
    for path in sorted(folder.rglob("*.tsv")):
        lines = list(csv.DictReader(path.read_text(encoding="utf-8").splitlines(), delimiter="\t"))
        seconds = numbers(lines, "s")
        if seconds:
            rule, *wildcards = path.relative_to(folder).with_suffix("").parts
            memory = max(numbers(lines, "max_rss"), default=None)
            jobs.append(Job(rule, "/".join(wildcards), sum(seconds), memory))
    return jobs


def times_section(jobs: Sequence[Job]) -> Section:
    """Return the section with the run time and memory of each rule and of each job."""
    by_rule: dict[str, list[Job]] = {}
    for job in jobs:
        by_rule.setdefault(job.rule, []).append(job)
    totals = {rule: sum(job.seconds for job in mine) for rule, mine in by_rule.items()}
    rows: list[list[Cell | str]] = []
    for rule, total in sorted(totals.items(), key=lambda item: -item[1]):
        memory = [job.max_rss_mb for job in by_rule[rule] if job.max_rss_mb is not None]
        rows.append(
            [
                rule,
                number(len(by_rule[rule])),
                duration_cell(total, max(totals.values())),
                duration_cell(max(job.seconds for job in by_rule[rule])),
                number(max(memory, default=None)),
            ]
        )
    longest = max(job.seconds for job in jobs)
    all_jobs: list[list[Cell | str]] = [
        [job.rule, job.wildcards, duration_cell(job.seconds, longest), number(job.max_rss_mb)]
        for job in sorted(jobs, key=lambda job: -job.seconds)
    ]
    heads = ["rule", "for", "time", "MB"]
    table = PageTable(heads, all_jobs, n_labels=2, search="Filter: rule, model, ...")
    summary = PageTable(["rule", "jobs", "time of all", "longest job", "most MB"], rows)
    panel = Section(f"All {len(jobs)} jobs", is_open=False, table=table)
    return Section("Run times", "times", table=summary, panels=[panel])
