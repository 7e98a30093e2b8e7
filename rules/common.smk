# What the rules share: the checked configuration, the plan, and the params of a rule.
import atexit
import logging
import sys
from pathlib import Path

from ssondo.workflow.preflight import check, find_command
from ssondo.config.loading import load_config
from ssondo.workflow.check_data import check_data_folder
from ssondo.errors import SsondoError
from ssondo.workflow.job_failures import Failures
from ssondo.workflow.plan import Plan
from ssondo.workflow.input_digests import InputDigests

try:
    if not Path("config.yaml").is_file():
        raise SsondoError("there is no config.yaml here; start snakemake in ssondo's own folder, data may lie anywhere")
    find_command()
    watch = InputDigests(Path(".snakemake/ssondo/content.json"))
    plan = Plan(load_config(config), watch)
    check(plan.config)
    check_data_folder(plan.config, plan.paths)
except SsondoError as error:
    sys.exit(f"error: {error}")

paths = plan.paths
atexit.register(watch.save)
failures = Failures()
# Distillations take longest, so what they wait for runs before everything else.
FIRST, NEXT = 2, 1
logging.getLogger("snakemake.logging").addFilter(failures)
if plan.config.audioset.source.kind == "youtube":
    # Each fetch job keeps its part of the rate, so no more of them may run at once.
    workflow.register_resource("fetch_jobs", plan.config.audioset.source.max_jobs)


onerror:
    if workflow.is_main_process:
        for line in failures.lines.values():
            logger.error(f"error: {line}")


# What takes seconds, and what needs the network, which nodes of a cluster often lack.
localrules:
    all,
    checkpoint,
    compose,
    inventory,
    availability,
    scores,
    table1,
    table2,
    fig2,
    report,


wildcard_constraints:
    split="train|eval",
    shard=r"\d{4}",
    teacher="[A-Za-z0-9_]+",
    student="[A-Za-z0-9_]+",
    loss="[a-z0-9_]+",
    n_clusters=r"\d+",
    seed=r"\d+",
    task="[A-Za-z0-9_]+",
    stage="audio|embeddings/[A-Za-z0-9_]+",
    checkpoint="(teacher|student)-[A-Za-z0-9_]+",
    file="[^/]+",
    model="(teacher|distilled|supervised|untrained)/.+",


def options(rule):
    """A rule's own slice of the configuration, as command-line options."""
    return lambda wildcards: plan.options(rule, **dict(wildcards))


def code(rule):
    """A hash of the code that a rule runs."""
    return lambda wildcards: plan.code(rule, **dict(wildcards))


def content(rule):
    """A digest of the user's own files that a rule reads."""
    return lambda wildcards: f"content={plan.content(rule, **dict(wildcards))}"


def digest(path):
    """The small file beside a large one that says what it holds; consumers depend on it."""
    return f"{path}.digest"


def growing(value):
    """A resource that grows with the attempt."""
    return lambda wildcards, attempt: int(value * attempt)


def every_shard(pattern, split):
    """The pattern with every shard of a split, for rules that read them all."""
    return expand(pattern, split=split, shard=plan.audioset.shards(split), allow_missing=True)
