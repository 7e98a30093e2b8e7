"""Processes of this machine, read from /proc, so that tests need no other program."""

import os
from pathlib import Path


def children_called(name: str) -> list[int]:
    """Process ids of this process's children whose program has this name."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            # "pid (name) state parent ..."; the name may hold spaces and brackets.
            pid, _, rest = stat.read_text().partition(" (")
        except (FileNotFoundError, ProcessLookupError):  # it ended meanwhile
            continue
        program, _, fields = rest.rpartition(") ")
        if program == name and int(fields.split()[1]) == os.getpid():
            found.append(int(pid))
    return found
