"""Peak memory of this process, on any operating system."""

import platform
from contextlib import suppress
from pathlib import Path

_STATUS, _RESET = Path("/proc/self/status"), Path("/proc/self/clear_refs")
"""Linux only, proc(5): the peak since the last reset, and the file that resets it by "5"."""


def reset_peak() -> None:
    """Make `peak_memory` measure from now on; where unsupported, it measures from the start."""
    with suppress(OSError):
        _RESET.write_text("5", encoding="ascii")


def peak_memory() -> dict[str, int]:
    """Return the peak memory of this process (MB); empty where it is not reported.

    On Linux since `reset_peak`, elsewhere since the start.
    """
    peak = _since_reset() or _since_start()
    return {"peak_memory_mb": round(peak / 2**20)} if peak else {}


def _since_reset() -> int | None:
    """Return the line `VmHWM: <number> kB` in bytes."""
    with suppress(OSError):
        for line in _STATUS.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) * 2**10
    return None


def _since_start() -> int | None:
    """`ru_maxrss` is in KiB on Linux and in bytes on macOS (getrusage(2) of each)."""
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return None
    unit = 1 if platform.system() == "Darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
