"""The facts of a check as lines for a terminal."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mace_exp.check.found import MAX_NAMED
from mace_exp.runs.work import THINGS, total_time

LABEL = 18


def file_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on settings, model and images."""
    settings, model, images = (facts[key] for key in ("settings", "model", "images"))
    yield "Settings"
    yield _row("method", f"{settings['method']}: {', '.join(settings['stages'])}")
    yield _row("concepts", _counts(settings["concepts"]))
    yield _row("anchors", _counts(settings["anchors"]))
    if settings["not_judged"]:
        named = _first(
            [
                f"{name}{f' (did you mean {near}?)' if near else ''}"
                for name, near in settings["not_judged"].items()
            ]
        )
        yield _row("not judged", f"{named}: can be erased, but accuracy is not measured")
    yield ""
    yield "Model"
    for key, value in model.items():
        if isinstance(value, Mapping):
            yield from _weight_rows(value)
        elif value is not None:
            yield _row(key.replace("_", " "), str(value))
    if images:
        yield ""
        yield from _image_lines(images)
    if facts["captions"]:
        yield ""
        yield "Captions to preserve"
        yield from (_row(name, _captions(term)) for name, term in facts["captions"].items())


def _captions(term: Mapping[str, Any]) -> str:
    """Return where the captions of a term come from."""
    found = []
    if "file" in term:
        without = f" ({term['without']} rows without)" if term["without"] else ""
        found.append(f"{term['read']} of {term['file']}{without}")
    if "cache" in term:
        found.append(f"sums of {term['cache']}")
    found += [f"{term[key]} {said}" for key, said in _OWN_CAPTIONS.items() if term[key]]
    return ", ".join(found) or "none"


_OWN_CAPTIONS = {"templates": "from templates", "given": "of the settings"}


def _weight_rows(weights: Mapping[str, Any]) -> Iterator[str]:
    if not weights:
        return
    stored = weights["bytes_by_type"]
    sizes = ", ".join(f"{_size(count)} {name}" for name, count in stored.items())
    variant = f", variant {weights['variant']}" if "variant" in weights else ""
    yield _row("weights", f"{weights['files']} files, {sizes}{variant}")


def _image_lines(images: Mapping[str, Any]) -> Iterator[str]:
    yield "Training images"
    if images["drawn"]:
        yield _row("drawn", f"{images['drawn']} by the model")
    if images["read"]:
        yield _row("read", _counts(images["by_suffix"]))
        yield _row("with a prompt", f"{images['with_a_prompt']} of {images['read']}")
    yield _row("masks", _counts(images["masks"], "concepts"))
    if images["empty_masks"]:
        named = _first(images["empty_masks"])
        count = len(images["empty_masks"])
        yield _row("empty masks", f"{count}, for which the whole image is used: {named}")
    if images["class_images"]:
        yield _row("class images", str(images["class_images"]))
    if "unread_folders" in images:
        yield _row("of no concept", ", ".join(images["unread_folders"]))
    for kind, left in images["left_out"].items():
        more = ", ..." if left["count"] > len(left["such_as"]) else ""
        yield _row("left out", f"{left['count']} {kind}: {', '.join(left['such_as'])}{more}")


def _first(names: Sequence[str]) -> str:
    return ", ".join(names[:MAX_NAMED]) + ", ..." * (len(names) > MAX_NAMED)


def work_lines(facts: Mapping[str, Any]) -> Iterator[str]:
    """Yield lines on what each stage computes and reuses, and on its estimated time."""
    yield ""
    if facts["work"] is None:
        yield f"Work: {facts['unknown']}"
        return
    yield f"{'Work':<{LABEL + 2}}{'to make':>10}{'reused':>10}  {'':<{LABEL}}time, as measured here"
    for stage in facts["work"]:
        entries = stage["entries"]
        made, reused = (sum(each[key] for each in entries) for key in ("made", "reused"))
        counts = f"{made:>10}{reused:>10}" if entries else " " * 20
        things = ", ".join(dict.fromkeys(THINGS.get(each["kind"], "") for each in entries))
        is_reused = entries and not made
        time = "-" if is_reused else total_time([stage["seconds"]]) or "unknown"
        yield f"  {stage['stage']:<{LABEL}}{counts}  {things:<{LABEL}}{time}"
    times = [each["seconds"] for each in facts["work"] if each["seconds"] != 0]
    unknown = "unknown: no stage was timed here" if times else "-"
    yield _row("together", total_time(times) or unknown)
    peaks = facts["memory"] or {}
    said = ", ".join(f"{mb} MB {_MEMORY[key]}" for key, mb in peaks.items())
    yield _row("memory", said or "unknown: no earlier run with this model here")
    yield _row("cache", facts["cache"])
    if facts["pictures"]:
        yield _row("pictures", f"{facts['pictures']} to measure by, before and after the edit")


_MEMORY = {"peak_memory_mb": "of the process", "peak_gpu_memory_mb": "of the GPU"}


def _size(count: int) -> str:
    return f"{count / 1e9:.2f} GB" if count >= 1e9 else f"{count / 1e6:.1f} MB"


def _counts(counts: Mapping[str, int], unit: str = "") -> str:
    after = f" {unit}" if unit else ""
    return ", ".join(f"{count} {name}{after}" for name, count in counts.items()) or "none"


def _row(label: str, text: str) -> str:
    return f"  {label:<{LABEL}}{text}"
