"""The CPU, package versions, and the peak memory of a process."""

import contextlib
import importlib.metadata
import os
import platform
import re
from typing import Dict, Optional


def cpu_name() -> str:
    """The CPU's model, such as "AMD EPYC 7763"; its architecture where Linux does not tell."""
    with contextlib.suppress(OSError, StopIteration), open("/proc/cpuinfo", encoding="utf-8", errors="replace") as file:
        return next(line.split(":", 1)[1].strip() for line in file if line.startswith("model name"))
    return platform.processor() or platform.machine()


def versions(*packages: str) -> Dict[str, Optional[str]]:
    """{"python" or package: its version}; None where it is not installed."""
    return {"python": platform.python_version(), **{package: _version(package) for package in packages}}


def _version(package: str) -> Optional[str]:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)


def memory_bytes() -> int:
    """The machine's memory."""
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def peak_memory_bytes(pid: object = "self") -> int:
    """A process's peak resident memory so far; 0 where it is unknown. (getrusage's starts at the peak of the parent
    process.)"""
    with contextlib.suppress(OSError), open(f"/proc/{pid}/status", encoding="ascii", errors="replace") as file:
        peak = re.search(r"VmHWM:\s+(\d+) kB", file.read())
        return int(peak[1]) * 1024 if peak else 0
    return 0
