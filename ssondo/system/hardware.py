"""Describe the machine that computes a result: Python, packages, processor and GPU, for its provenance.

The description does not influence any result, so it is not part of any digest, and this module is not part of
the code hash. It names neither user nor host. Values that cannot be read are omitted.
"""

import ctypes
import os
import platform
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

_PACKAGES = ("ssondo", "torch", "numpy", "onnxruntime", "faiss-cpu", "scikit-learn", "soxr")
_CPU_INFO = Path("/proc/cpuinfo")
_DRIVER = Path("/proc/driver/nvidia/version")
_NVML = "libnvidia-ml.so.1"
_OWN_CGROUP = Path("/proc/self/cgroup")
_CGROUPS = Path("/sys/fs/cgroup")


def describe_machine(device: str = "cpu", n_processes: int = 1) -> dict[str, str]:
    """Describe this machine as names and values.

    Args:
        device: Device of the computation, e.g. cpu, cuda, cuda:1; for a GPU, torch must be imported already.
        n_processes: Number of processes of the computation, each on such a device.

    Returns:
        Always `python`, `machine` (system and processor type) and `device`; if available `processor`, `cores`
        and `memory` (which this process may use) and the versions of packages; for a GPU `gpu`, `gpu_memory`,
        `driver` and `cuda`; `processes` if there are several.
    """
    kind = device.partition(":")[0]
    description: dict[str, str | None] = {
        "python": platform.python_version(),
        "machine": f"{platform.system()} {platform.machine()}",
        "processor": processor(),
        "cores": str(n_cores()),
        "memory": _gib(memory_bytes()),
        "device": kind,
        "processes": str(n_processes) if n_processes > 1 else None,
        **{package: _version(package) for package in _PACKAGES},
        **(_gpu(device) if kind == "cuda" else {}),
    }
    return {name: value for name, value in description.items() if value}


def processor() -> str:
    """Model of the processor, or its type if the system does not report the model."""
    for line in _text(_CPU_INFO).splitlines():
        name, _, value = line.partition(":")
        if name.strip() == "model name" and value.strip():
            return " ".join(value.split())
    if platform.system() == "Darwin":
        with suppress(OSError, subprocess.SubprocessError):
            command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
            return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    return platform.processor() or platform.machine()


def n_cores() -> int:
    """Number of cores that this process may use: those it is bound to, or fewer if a container limits their time."""
    bound = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for limit in _cgroup_limits("cpu.max"):
        quota, _, period = limit.partition(" ")
        if quota.isdigit() and period.isdigit() and int(period):
            bound = min(bound, -(-int(quota) // int(period)))
    return max(bound, 1)


def memory_bytes() -> int | None:
    """Memory in bytes that this process may use: that of the machine, or the limit of its container or job."""
    sizes = [int(limit) for limit in _cgroup_limits("memory.max") if limit.isdigit()]
    with suppress(AttributeError, ValueError, OSError):
        sizes.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    return min((size for size in sizes if size > 0), default=None)


def _cgroup_limits(name: str) -> Iterator[str]:
    """Values of the file `name` in the control groups (version 2) of this process."""
    path = next((line[3:] for line in _text(_OWN_CGROUP).splitlines() if line.startswith("0::")), "/")
    own = Path("/" + path.strip("/"))
    for group in (own, *own.parents):
        if limit := _text(_CGROUPS / group.relative_to("/") / name).strip():
            yield limit


def _gpu(device: str) -> dict[str, str | None]:
    """Name, memory, driver and CUDA version of a GPU that torch has used."""
    torch = sys.modules.get("torch")
    if torch is None:
        return {}
    description: dict[str, str | None] = {"cuda": torch.version.cuda or torch.version.hip, "driver": _driver()}
    with suppress(RuntimeError, AssertionError, ValueError):
        properties = torch.cuda.get_device_properties(device)
        description |= {"gpu": properties.name, "gpu_memory": _gib(properties.total_memory)}
    return description


def _driver() -> str | None:
    """Version of the NVIDIA driver, from the kernel or, if a container hides it, from the NVIDIA library."""
    words = _text(_DRIVER).partition("\n")[0].split()
    version_ = next((word for word in words if word[:1].isdigit() and "." in word), None)
    if version_ is None:
        with suppress(OSError, AttributeError):
            library, text = ctypes.CDLL(_NVML), ctypes.create_string_buffer(80)
            if library.nvmlInit_v2() == 0 and library.nvmlSystemGetDriverVersion(text, len(text)) == 0:
                version_ = text.value.decode("ascii", "replace")
    return version_


def _version(package: str) -> str | None:
    """Version of a package; for torch with its build variant if it is imported."""
    loaded = sys.modules.get(package) if package == "torch" else None
    with suppress(PackageNotFoundError):
        return str(loaded.__version__) if loaded else version(package)
    return None


def _gib(size: int | None) -> str | None:
    return None if size is None else f"{size / 2**30:.3g} GiB"


def _text(path: Path) -> str:
    """Content of a small system file; empty if it does not exist or cannot be read."""
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
