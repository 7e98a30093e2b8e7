"""Memory and run time of the attempts of a job.

A resource that a rule or a profile gives as a function of `attempt` grows in Snakemake with every attempt, whatever the
reason of the failure: a job with a wrong input file would request three times its memory at last. Here, `attempt` in
`mem_mb` is one more than the number of failures for lack of memory, and in `runtime` one more than the number of those
at a time limit. The resources `max_mem_mb` and `max_runtime`, which a profile may set for all rules or for one, limit
both.
"""

from collections.abc import Iterable
from typing import Any

from ssondo.workflow.job_failures import JobFailures

GROWING = ("mem_mb", "runtime")


def limit_attempts(rules: Iterable[Any], failures: JobFailures) -> None:
    """Replace the memory and run time of all rules as described above.

    Args:
        rules: the rules of a Snakemake workflow, after all of them were defined.
        failures: the failures of the jobs so far.
    """
    for rule in rules:
        for name in GROWING:
            if name in rule.resources:
                rule.resources[name] = _limited(rule.resources[name], rule.resources.get(f"max_{name}"), failures)


def _limited(requested: Any, maximum: Any, failures: JobFailures) -> Any:
    """Return a Resource of Snakemake that is `requested`, with other attempts, and at most `maximum`."""

    def value(wildcards: Any, input: Any, attempt: int, threads: int, rulename: str, async_run: Any) -> Any:
        def evaluate(resource: Any, attempt: int) -> Any:
            return resource.evaluate(
                wildcards, input=input, attempt=attempt, threads=threads, rulename=rulename, async_run=async_run
            ).value

        amount = evaluate(requested, 1 + failures.n_too_small(rulename, wildcards, requested.name))
        most = evaluate(maximum, attempt)
        return min(amount, most) if isinstance(amount, int) and isinstance(most, int) else amount

    return type(requested)(requested.name, value, raw=requested.raw)
