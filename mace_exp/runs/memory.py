"""Peak memory of this process, on any operating system."""

import platform


def peak_memory() -> dict[str, int]:
    """Return the peak memory of this process so far (MB); empty where it is not reported.

    `ru_maxrss` is in KiB on Linux and in bytes on macOS (getrusage(2) of each).
    """
    try:
        import resource
    except ModuleNotFoundError:  # Windows
        return {}
    unit = 1 if platform.system() == "Darwin" else 2**10
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return {"peak_memory_mb": round(peak / 2**20)}
