"""Limits of a SLURM cluster: requests that no node can meet, and jobs that will never start.

SLURM refuses a job that requests more than its partition has, or keeps it pending for ever, which nothing reports.
`check_requests` compares the requests of a run with the partitions before the first job is submitted, and
`watch_pending_jobs` reports later what SLURM says about jobs that do not start.
"""

import re
import subprocess
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from ssondo.errors import SsondoError

_INTERVAL_S = 60
_NEVER_STARTS = re.compile(
    r"PartitionTimeLimit|PartitionNodeLimit|PartitionInactive|BadConstraints|AccountNotAllowed|InvalidAccount|InvalidQOS"
    r"|QOSNotAllowed|QOSTimeLimit|JobHeld\w+|DependencyNeverSatisfied|(?:Assoc|QOS)Max\w*Per(?:Job|Node)\w*"
)
"""Reasons for which SLURM leaves a job pending until somebody changes the job or the cluster's settings."""


class Request(NamedTuple):
    """What the jobs of a rule request: the largest of each.

    Attributes:
        partition: name of the partition, or several separated by commas; "" for the default partition, None if the
            executor chooses it.
        minutes: time limit in minutes.
        mem_mb: memory on a node in MB.
        threads: processors on a node.
        gpus: GPUs on a node.
        qos: whether a quality of service is requested, which may replace the limits of a partition.
    """

    rule: str
    partition: str | None
    minutes: int
    mem_mb: int
    threads: int
    gpus: int
    qos: bool = False


class Node(NamedTuple):
    """One kind of node in a partition, with the time limit of the partition; None if there is no limit."""

    minutes: int | None
    threads: int
    mem_mb: int
    gpus: int


class Partitions(NamedTuple):
    """The nodes of each partition, and the name of the default partition ("" if there is none)."""

    nodes: dict[str, list[Node]]
    default: str


def parse_partitions(text: str) -> Partitions:
    """Return the partitions that `sinfo --Node --noheader --format='%P|%l|%c|%m|%G'` printed."""
    nodes: dict[str, set[Node]] = {}
    default = ""
    for line in text.splitlines():
        name, limit, threads, memory, gres = line.strip().split("|", 4)
        if name.endswith("*"):
            name = default = name[:-1]
        gpus = sum(int(n) for n in re.findall(r"\bgpu(?::[^:,(]+)?:(\d+)", gres))
        node = Node(_minutes(limit), int(threads.rstrip("+")), int(memory.rstrip("+")), gpus)
        nodes.setdefault(name, set()).add(node)
    return Partitions({name: sorted(kinds, key=str) for name, kinds in nodes.items()}, default)


def _minutes(limit: str) -> int | None:
    """Return a time limit of SLURM, [days-]hours:minutes:seconds or minutes:seconds, in minutes; None for no limit."""
    match = re.fullmatch(r"(?:(\d+)-)?(?:(\d+):)?(\d+):(\d+)", limit)
    if match is None:
        return None
    days, hours, minutes, _ = (int(number or 0) for number in match.groups())
    return (24 * days + hours) * 60 + minutes


def requests_of(jobs: Iterable[Any], *, chosen_by_executor: bool) -> list[Request]:
    """Return what the jobs of each rule request.

    Args:
        jobs: jobs of Snakemake's DAG that will be submitted.
        chosen_by_executor: whether the executor chooses the partitions of jobs that name none.
    """
    largest: dict[tuple[str, str | None], Request] = {}
    for job in jobs:
        resources = job.resources
        partition = resources.get("slurm_partition") or (None if chosen_by_executor else "")
        gres = re.search(r"\bgpu(?::[^:,]+)?:(\d+)", str(resources.get("gres") or ""))
        request = Request(
            job.rule.name,
            partition,
            _number(resources.get("runtime")),
            _number(resources.get("mem_mb")),
            int(job.threads),
            int(gres[1]) if gres else _number(resources.get("gpu")),
            bool(resources.get("qos")),
        )
        key = (request.rule, request.partition)
        before = largest.get(key, request)
        largest[key] = request._replace(
            **{name: max(getattr(request, name), getattr(before, name)) for name in Request._fields[2:]}
        )
    return list(largest.values())


def _number(value: Any) -> int:
    return value if isinstance(value, int) else 0


def explain_excess(request: Request, partitions: Partitions) -> str | None:
    """Return why no partition that a request allows can run it, with what to change; None if one can."""
    rule = f"rule {request.rule}"
    names = list(partitions.nodes)
    if request.partition is not None:
        names = (request.partition or partitions.default).split(",")
        unknown = [name for name in names if name and name not in partitions.nodes]
        if unknown:
            return (
                f"{rule}: SLURM has no partition {unknown[0]}; it has {', '.join(partitions.nodes)}; correct "
                "slurm_partition in profiles/slurm/config.yaml"
            )
    nodes = [node for name in names for node in partitions.nodes.get(name, [])]
    if not nodes or any(_fits(request, node) for node in nodes):
        return None
    where = f"partition {names[0]}" if len(names) == 1 else f"the partitions {', '.join(names)}"
    if request.gpus and not any(node.gpus for node in nodes):
        return (
            f"{rule} requests GPUs ({request.gpus}), and no node of {where} has any; set another slurm_partition for "
            "it in set-resources of the profile, or runtime: {gpus: 0} in the configuration"
        )
    nodes = [node for node in nodes if node.gpus >= request.gpus] or nodes
    minutes = None if any(node.minutes is None for node in nodes) else max(node.minutes or 0 for node in nodes)
    mem_mb, threads, gpus = (max(getattr(node, name) for node in nodes) for name in ("mem_mb", "threads", "gpus"))
    for amount, most, unit, advice in (
        (request.minutes, minutes, "minutes", f"set max_runtime: {minutes} in default-resources of the profile"),
        (request.mem_mb, mem_mb, "MB of memory", f"set max_mem_mb: {mem_mb} in default-resources of the profile"),
        (request.threads, threads, "processors", f"set max-threads: {threads} in the profile"),
        (request.gpus, gpus, "GPUs", f"set runtime: {{gpus: {gpus}}} in the configuration"),
    ):
        if most is not None and amount > most:
            return f"{rule} requests {amount:,} {unit}, and the limit of {where} is {most:,}; {advice}"
    return f"{rule}: no single node of {where} has the processors, memory and GPUs that it requests"


def _fits(request: Request, node: Node) -> bool:
    in_time = node.minutes is None or request.minutes <= node.minutes or request.qos
    return in_time and all(
        getattr(request, resource) <= getattr(node, resource) for resource in ("threads", "mem_mb", "gpus")
    )


def check_requests(requests: Iterable[Request]) -> None:
    """Check that the cluster can run what the rules request. Nothing is checked if `sinfo` fails.

    Raises:
        SsondoError: one line for each rule that it cannot run.
    """
    text = _query("sinfo", "--Node", "--noheader", "--format=%P|%l|%c|%m|%G")
    if text is None:
        return
    partitions = parse_partitions(text)
    lines = [line for request in requests if (line := explain_excess(request, partitions)) is not None]
    if lines:
        raise SsondoError("\nerror: ".join(lines))


def watch_pending_jobs(job_names: Mapping[str, str], warn: Callable[[str], None]) -> None:
    """Start a thread that reports, once a minute, jobs that SLURM will not start.

    Args:
        job_names: rule and message of each job by its number in SLURM; jobs are added while the thread runs.
        warn: function that prints a line; it is called once for each rule and reason.
    """
    reported: set[tuple[str, str]] = set()

    def watch() -> None:
        while not threading.Event().wait(_INTERVAL_S):
            for line in never_starting(job_names, reported):
                warn(line)

    threading.Thread(target=watch, name="pending jobs", daemon=True).start()


def never_starting(job_names: Mapping[str, str], reported: set[tuple[str, str]]) -> Iterator[str]:
    """Return a line for each rule and reason with a pending job that will not start, and add them to `reported`."""
    text = _query("squeue", "--me", "--noheader", "--states=PENDING", "--format=%i|%r|%P|%l|%m|%C") or ""
    for line in text.splitlines():
        number, reason, partition, limit, memory, threads = line.split("|", 5)
        name = job_names.get(number)
        if name is None or not _NEVER_STARTS.search(reason):
            continue
        key = (name.partition(" (")[0], reason)
        if key not in reported:
            reported.add(key)
            yield (
                f"{name}: SLURM job {number} will not start: {reason} (partition {partition}, time limit {limit}, "
                f"memory {memory}, {threads} processors); stop with Ctrl-C, correct profiles/slurm/config.yaml, and "
                "give the same command again"
            )


def _query(*command: str) -> str | None:
    """Return what a command of SLURM prints; None if it fails."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    except (OSError, subprocess.SubprocessError):
        return None
