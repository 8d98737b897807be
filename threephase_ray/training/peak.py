"""The most memory that a phase took; a worker process does many, one after another."""

import contextlib
import re
import resource
from pathlib import Path

import torch


def reset(device: torch.device) -> None:
    """Begin to measure anew, where the system allows it."""
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
        return
    with contextlib.suppress(OSError):  # Linux only, and not in every container: then the peak is that of the process so far
        Path("/proc/self/clear_refs").write_text("5")


def memory(device: torch.device) -> int:
    """Bytes: of the GPU where there is one, else of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    status = Path("/proc/self/status")
    found = re.search(r"VmHWM:\s+(\d+) kB", status.read_text()) if status.exists() else None
    return 1024 * (int(found[1]) if found else resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
