"""The settings of the allocator, each in a separate process."""

import platform
import subprocess
import sys

import pytest

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")

PROGRAM = """
import resource, sys
import torch
from ssondo.system.allocator import disable_malloc_trim
if sys.argv[1] == "kept":
    assert disable_malloc_trim()
for _ in range(30):
    torch.ones(1 << 24)  # 64 MB; small objects between them occupy the first addresses
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    torch.ones(1 << 24)
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


def page_faults(mode: str) -> int:
    done = subprocess.run([sys.executable, "-c", PROGRAM, mode], capture_output=True, text=True, check=True)
    return int(done.stdout)


def test_memory_of_a_freed_tensor_is_reused_without_page_faults():
    # A page has at least 4 KiB.
    assert page_faults("kept") < 100
    assert page_faults("given back") > 10 * page_faults("kept")
