"""The memory of this process, on whatever system it runs."""

import platform


def peak_memory() -> dict[str, int]:
    """The most memory that this process has held so far; nothing where the system keeps no count.

    `ru_maxrss` is in KiB on Linux and in bytes on macOS (getrusage(2) of each).
    """
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return {}
    unit = 1 if platform.system() == "Darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_memory_mb": round(peak / 2**20)}
