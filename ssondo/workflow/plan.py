"""The verb `plan`: the estimated costs of a run as a table."""

import logging
from pathlib import Path

from ssondo.config.loading import load_files
from ssondo.errors import SsondoError
from ssondo.workflow.estimate import Costs, count_clips, estimate, read_rates
from ssondo.workflow.experiment import Experiment
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.preflight import check_config
from ssondo.workflow.why import explain, reruns

log = logging.getLogger(__name__)


def _hours(value: float | None) -> str:
    if value is None:
        return "?"
    return "" if not value else f"{value:,.1f}" if value >= 0.1 else "< 0.1"


def _gigabytes(value: float) -> str:
    return "" if not value else f"{value:,.0f}" if value >= 10 else f"{value:.1f}" if value >= 0.1 else "< 0.1"


def costs_text(costs: Costs) -> str:
    """Return the costs as a table followed by sentences, for a terminal."""
    lines: list[tuple[str, ...]] = [("rule", "jobs", "core hours", "GPU hours", "GB")]
    for stage in costs.stages:
        hours = (_hours(stage.core_hours), _hours(stage.gpu_hours))
        lines.append((stage.rule, f"{stage.jobs:,}", *hours, _gigabytes(stage.gigabytes)))
    stages = costs.stages
    totals = (sum(s.core_hours or 0 for s in stages), sum(s.gpu_hours or 0 for s in stages))
    disk = _gigabytes(sum(s.gigabytes for s in stages))
    lines.append(("all", f"{sum(s.jobs for s in stages):,}", *map(_hours, totals), disk))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = [
        "  ".join([line[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(line[1:], widths[1:], strict=True))]).rstrip()
        for line in lines
    ]
    text += ["", *(f"Downloads: {what}." for what in costs.downloads)]
    if costs.fetching_days is not None:
        text.append(
            f"Fetching: {costs.fetching_days:,.0f} days at audioset.source.requests_per_hour, the rate of the whole "
            "run; importing a local copy takes none of these days."
        )
    return "\n".join([*text, *costs.notes])


def plan(
    *,
    configfile: list[Path] | None = None,
    train_clips: int | None = None,
    eval_clips: int | None = None,
) -> None:
    """Estimate the costs of a run: jobs, core hours, GPU hours, disk space, downloads and days of fetching.

    Args:
        configfile: Configuration files that override config.yaml, as for snakemake's --configfile.
        train_clips: Number of training clips, if the lists are neither local files nor AudioSet's own.
        eval_clips: Number of evaluation clips, if the lists are neither local files nor AudioSet's own.

    Raises:
        SsondoError: if the configuration is invalid or the number of clips cannot be determined.
    """
    config = load_files(configfile or [])
    try:
        check_config(config)
    except SsondoError as error:
        log.warning("plan: snakemake will reject this configuration: %s", error)
    experiment = Experiment(config, InputDigests(Path(".snakemake/ssondo/content.json")))
    counts = {}
    for split, given in (("train", train_clips), ("eval", eval_clips)):
        counts[split] = given if given is not None else count_clips(experiment, split)
        if counts[split] is None:
            raise SsondoError(
                f"audioset.segments.{split}: the number of clips is unknown until the lists are downloaded; "
                f"give it with --{split}-clips"
            )
    costs = estimate(experiment, read_rates(), n_train=counts["train"] or 0, n_eval=counts["eval"] or 0)
    stages = costs.stages
    log.info("%s\n", costs_text(costs))
    if Path(experiment.paths.data).is_dir() and Path(".snakemake/metadata").is_dir():
        try:
            log.info(
                "Of these jobs, the following would run now, and why:\n%s\n", explain(reruns((), configfile or ()))
            )
        except SsondoError as error:
            log.warning("plan: the jobs that would run are unknown: %s", error)
    log.info(
        "plan: %s: %s clips, %s jobs, about %s core hours and %s GPU hours, %s GB",
        config.name,
        f"{(counts['train'] or 0) + (counts['eval'] or 0):,}",
        f"{sum(stage.jobs for stage in stages):,}",
        _hours(sum(stage.core_hours or 0 for stage in stages)) or "0",
        _hours(sum(stage.gpu_hours or 0 for stage in stages)) or "0",
        _gigabytes(sum(stage.gigabytes for stage in stages)),
    )
