# Shared by all rules: the checked configuration, the experiment, and inputs and params that depend on it.
import atexit
import logging
import sys
from pathlib import Path

from ssondo.config.loading import load_config
from ssondo.errors import SsondoError
from ssondo.storage.atomic_files import write_json
from ssondo.workflow.attempts import limit_attempts
from ssondo.workflow.check_data import check_data_folder
from ssondo.workflow.cli_options import to_cli_options
from ssondo.workflow.experiment import Experiment
from ssondo.workflow.input_digests import InputDigests
from ssondo.workflow.job_failures import JobFailures
from ssondo.workflow.preflight import check_config, find_command
from ssondo.workflow.rules.distill import training_memory_mb, training_resources
from ssondo.workflow.slurm import check_requests, requests_of, watch_pending_jobs

try:
    if not Path("config.yaml").is_file():
        raise SsondoError("config.yaml does not exist in this folder; start snakemake in the folder of the project")
    find_command()
    digests = InputDigests(Path(".snakemake/ssondo/content.json"))
    experiment = Experiment(load_config(config), digests)
    check_config(experiment.config)
    check_data_folder(experiment.config, experiment.paths)
except SsondoError as error:
    sys.exit(f"error: {error}")

paths = experiment.paths
atexit.register(digests.save)
failures = JobFailures()
# Distillations take longest, so they and the jobs that they wait for are started first.
FIRST, NEXT = 2, 1
logging.getLogger("snakemake.logging").addFilter(failures)
if experiment.config.audioset.source.kind == "youtube":
    # Each fetch job keeps to an equal share of the request rate, so no more than max_jobs may run at the same time.
    workflow.register_resource("fetch_jobs", experiment.config.audioset.source.max_jobs)


onstart:
    if workflow.is_main_process:
        write_json(paths.rule_graph, rule_graph(workflow.dag))
        failures.jobs = {workflow.dag.jobid(job): job for job in workflow.dag.jobs}
        if workflow.executor_plugin.name == "slurm":
            check_cluster(workflow)


onerror:
    if workflow.is_main_process:
        for line in failures.lines:
            logger.error(f"error: {line}")


# Rules that take seconds, and rules that need the network, to which the nodes of a cluster often have no access.
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
    """Return the settings of a rule as command-line options."""
    return lambda wildcards: experiment.options(rule, **dict(wildcards))


def untracked_options(rule):
    """Return options that cannot change a result; as a resource, because a changed resource runs no job again."""
    return lambda wildcards: experiment.untracked_options(rule, **dict(wildcards))


def code(rule):
    """Return a hash of the code that a rule runs."""
    return lambda wildcards: experiment.code(rule, **dict(wildcards))


def content(rule):
    """Return a digest of the user's own files that a rule reads."""
    return lambda wildcards: f"content={experiment.content(rule, **dict(wildcards))}"


def inputs(rule, name):
    """Return an input that only some configurations have."""
    return lambda wildcards: experiment.inputs(rule, **dict(wildcards))[name]


def input_options(*names):
    """Return the inputs of these names as command-line options, without those that have no files."""
    return lambda wildcards, input: to_cli_options(**{name: input.get(name) for name in names})


def digest(path):
    """Return the path of the small file that identifies the content of a large one."""
    return f"{path}.digest"


def large(**files):
    """Return inputs that Snakemake compares by their digest files, NAME_digest, and not by their own time stamps."""

    def named(name, files):
        if callable(files):
            data = lambda wildcards: ancient(files(wildcards))
            digests = lambda wildcards: [digest(file) for file in files(wildcards)]
        else:
            data = ancient(files)
            digests = digest(files) if isinstance(files, str) else [digest(file) for file in files]
        return {name: data, f"{name}_digest": digests}

    return {key: value for name, one in files.items() for key, value in named(name, one).items()}


def every_shard(pattern, split):
    """Return the pattern expanded to every shard of a split."""
    return expand(pattern, split=split, shard=paths.shards(split), allow_missing=True)


def large_shards(pattern, split):
    """Return every shard of a split, for a rule that also reads the inventory, which changes with any of them."""
    return ancient(every_shard(pattern, split))


def rule_graph(dag):
    """Return the rules of this run and, for each, the rules whose files it reads; the report draws it."""
    sources = {}
    for job in dag.jobs:
        if job.output:
            sources.setdefault(job.rule.name, set()).update(dep.rule.name for dep in dag.dependencies[job])
    return {rule: sorted(names) for rule, names in sources.items()}


def check_cluster(workflow):
    """Check the requests of all jobs that SLURM gets, and report during the run which of them it will not start."""
    jobs = [job for job in workflow.dag.needrun_jobs() if not job.is_local]
    chosen_by_executor = workflow.executor_settings.partition_config is not None
    try:
        check_requests(requests_of(jobs, chosen_by_executor=chosen_by_executor))
    except SsondoError as error:
        sys.exit(f"error: {error}")
    watch_pending_jobs(failures.submitted, lambda line: logger.warning(f"warning: {line}"))


def growing(value):
    """Return a resource that is multiplied by the number of the attempt."""
    return lambda wildcards, attempt: int(value * attempt)
