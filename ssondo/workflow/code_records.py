"""The code hash of a job, and records of what such hashes and digests of input files stand for.

Snakemake records a hash of 16 digits with each result. `ssondo why` names the function or file that changed, so
the parts of each hash are kept in .snakemake/ssondo/, in one small file for each hash.
"""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ssondo.provenance import accepted_hash, definitions_of
from ssondo.storage.atomic_files import read_json, write_text

_SNAKEMAKE = Path(".snakemake")
_RECORDS = _SNAKEMAKE / "ssondo" / "parts"


def job_code(rule: str, modules: Sequence[str]) -> str:
    """Return the code hash that Snakemake compares for a job: that of the first code with the same results.

    Args:
        rule: Name of the rule.
        modules: The modules that the job's command starts from.
    """
    digest = accepted_hash(rule, *modules)
    record(digest, lambda: definitions_of(*modules))
    return digest


_recorded: set[str] = set()


def record(digest: str, parts: Callable[[], Any]) -> None:
    """Remember what a hash stands for, once, in the folder of a workflow.

    Args:
        digest: The hash.
        parts: A function that returns its parts, which JSON can hold.
    """
    if digest in _recorded or not _SNAKEMAKE.is_dir():
        return
    _recorded.add(digest)
    path = _RECORDS / f"{digest}.json"
    if not path.exists():
        write_text(path, json.dumps(parts()))


def recorded(digest: str) -> dict[str, Any] | None:
    """Return what a hash stands for; None if that is not recorded."""
    path = _RECORDS / f"{digest}.json"
    if not path.is_file():
        return None
    parts: dict[str, Any] = read_json(path)
    return parts
