"""Cost of the closed forms by the number of concepts, at the size of Stable Diffusion 1.4.

Every number of concepts is measured in a separate process. Its peak memory before the first sum
(part `before`) is that of the weights of 32 projections and a text encoder; LoRAs are files. All
weights are random; cost does not depend on their values. `--states encoder` encodes sentences with
a random CLIP of Stable Diffusion's size, `--states random` draws the states of a sentence instead.

For comparison, a straightforward implementation of the paper's sums, layer by layer and token by
token, is measured on a sample. Appends rows to results.csv beside this file.
"""

import argparse
import csv
import json
import logging
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mace_exp.methods.mace.fusion import FusionAccumulator, fuse
from mace_exp.methods.mace.grams import GramFile
from mace_exp.methods.mace.lora import Factors, Lora, LoraShape, load_lora, save_lora
from mace_exp.methods.mace.refinement import (
    AnchorStates,
    PairSums,
    PromptPair,
    concept_sums,
    refine,
)
from mace_exp.models.text import Branch, PromptEncoder

WIDTH, LENGTH = 768, 77
OUTPUTS = [320] * 10 + [640] * 10 + [1280] * 12
"""d_out of Stable Diffusion 1.4's keys and values, two for each of 16 cross-attentions."""
RANK = 1  # as published
HERE = Path(__file__).parent
COLUMNS = ("concepts", "states", "sentences", "part", "seconds", "peak MB", "threads")
log = logging.getLogger(__name__)


def main() -> None:
    """Measure one number of concepts in this process, or several in separate processes."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("counts", type=int, nargs="+", help="numbers of concepts")
    parser.add_argument("--states", choices=("encoder", "random"), default="random")
    parser.add_argument("--sentences", type=int, default=30, help="per concept")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--here", action="store_true", help=argparse.SUPPRESS)
    chosen = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    torch.set_num_threads(chosen.threads)
    if chosen.here:
        sys.stdout.write(json.dumps(measured(chosen.counts[0], chosen.states, chosen.sentences)))
        return
    file = HERE / "results.csv"
    is_new = not file.exists()
    with file.open("a", newline="", encoding="utf-8") as opened:
        table = csv.writer(opened, lineterminator="\n")
        if is_new:
            table.writerow(COLUMNS)
        for count in chosen.counts:
            options = [f"--{name}={getattr(chosen, name)}" for name in ("states", "sentences")]
            command = [sys.executable, __file__, str(count), "--here", *options]
            found = subprocess.run(
                [*command, f"--threads={chosen.threads}"], check=True, stdout=subprocess.PIPE
            )
            for part, seconds, peak in json.loads(found.stdout):
                row = [count, chosen.states, chosen.sentences, part, seconds, peak, chosen.threads]
                table.writerow(row)
                opened.flush()
                log.info("%s", row)


class Clock:
    """Accumulated processor seconds and peak memory of named parts."""

    def __init__(self) -> None:
        self.rows: dict[str, list[float]] = {}

    @contextmanager
    def part(self, name: str) -> Iterator[None]:
        began = time.process_time()
        yield
        row = self.rows.setdefault(name, [0.0, 0.0])
        row[0] += time.process_time() - began
        row[1] = peak_megabytes()

    def table(self) -> list[tuple[str, float, int]]:
        return [(name, round(row[0], 4), round(row[1])) for name, row in self.rows.items()]


def peak_megabytes() -> float:
    """Return the peak resident memory of this process so far."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


class RandomStates(PromptEncoder):
    """Draws random states of a sentence, the same ones each time within a process."""

    def __init__(self, tokenizer: Any) -> None:
        super().__init__((Branch(tokenizer, torch.nn.Module()),))

    context_length = LENGTH  # type: ignore[assignment]
    width = WIDTH  # type: ignore[assignment]

    def encode(self, prompts: Any, *, batch_size: int = 64) -> Tensor:
        return torch.stack([_drawn(each) for each in prompts])

    def stream(self, prompts: Any, *, batch_size: int = 64) -> Iterator[Tensor]:
        for start in range(0, len(prompts), batch_size):
            yield self.encode(prompts[start : start + batch_size])


def _drawn(sentence: str) -> Tensor:
    source = torch.Generator().manual_seed(hash(sentence) % 2**31)
    return torch.randn(LENGTH, WIDTH, generator=source)


class Timed:
    """An encoder whose time is measured as the part `states`."""

    def __init__(self, encoder: Any, clock: Clock) -> None:
        self._encoder, self._clock = encoder, clock

    def __getattr__(self, name: str) -> Any:
        return getattr(self._encoder, name)

    def encode(self, prompts: Any, *, batch_size: int = 64) -> Tensor:
        with self._clock.part("states"):
            return self._encoder.encode(prompts, batch_size=batch_size)


def measured(count: int, states: str, sentences: int) -> list[tuple[str, float, int]]:
    """Return part, seconds and peak memory in MB of every part with `count` concepts."""
    clock, source = Clock(), torch.Generator().manual_seed(0)
    weights = {
        f"{layer}.attn2.{'to_k' if layer % 2 else 'to_v'}.weight": torch.randn(
            outputs, WIDTH, generator=source
        )
        for layer, outputs in enumerate(OUTPUTS)
    }
    encoder = Timed(_encoder(states), clock)
    held = torch.eye(WIDTH, dtype=torch.float64)
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "lora.safetensors"
        save_lora(file, _lora(weights, source))
        clock.rows["before"] = [0.0, peak_megabytes()]
        edit = _solve(clock, encoder, weights, file, (count, sentences, held))
    assert len(edit) == len(OUTPUTS)
    straightforward(clock, encoder, weights, sentences)
    return clock.table()


def _solve(
    clock: Clock,
    encoder: Any,
    weights: dict[str, Tensor],
    file: Path,
    sizes: tuple[int, int, Tensor],
) -> dict[str, Tensor]:
    """Refine and fuse as a run does: one pass over the sentences, sums, one solution each."""
    count, sentences, held = sizes
    sums, anchors, grams = PairSums.zeros(WIDTH), AnchorStates(encoder), GramFile()
    for number in range(count):
        pairs = _pairs(number, sentences)
        began = clock.rows.get("states", [0.0])[0]
        start = time.process_time()
        found = concept_sums(encoder, pairs, anchors)
        sums = sums + found.pairs
        encoding = clock.rows["states"][0] - began
        _add(clock, "sums over tokens", time.process_time() - start - encoding)
        with clock.part("moments written and read"):
            grams.put([pair.concept for pair in pairs], found.gram)
    with clock.part("refinement solved"):
        refined = refine(sums, closeness=1.0, preserved=held)
    fusion = FusionAccumulator(WIDTH)
    for number in range(count):
        with clock.part("moments written and read"):
            gram = grams.get([pair.concept for pair in _pairs(number, sentences)])
        with clock.part("LoRAs read and reduced"):
            assert gram is not None
            fusion.add(gram, load_lora(file), refined)
    with clock.part("fusion solved, all layers"):
        return fuse(weights, refined, fusion.result(), closeness=1.0, preserved=held)


def _add(clock: Clock, name: str, seconds: float) -> None:
    row = clock.rows.setdefault(name, [0.0, 0.0])
    row[0] += seconds
    row[1] = peak_megabytes()


def straightforward(clock: Clock, encoder: Any, weights: dict[str, Tensor], sentences: int) -> None:
    """Sum one sentence of one concept in one layer of each width as the paper writes it: an outer
    product per token, float32; the row is scaled to all sentences and layers of one concept."""
    pair = _pairs(0, 1)[0]
    old, new = encoder._encoder.encode(list(pair))
    taken = {}
    for outputs in sorted(set(OUTPUTS)):
        weight = next(each for each in weights.values() if len(each) == outputs)
        left, right = torch.zeros(outputs, WIDTH), torch.zeros(WIDTH, WIDTH)
        began = time.process_time()
        for source_state, target_state in zip(old, new, strict=True):
            left += torch.outer(weight @ target_state, source_state)
            right += torch.outer(source_state, source_state)
        taken[outputs] = time.process_time() - began
    refinement = sentences * sum(taken[outputs] for outputs in OUTPUTS)
    _add(clock, "straightforward, one concept, both closed forms (scaled)", 2 * refinement)
    began = time.process_time()
    for outputs in sorted(set(OUTPUTS)):
        system = right + torch.eye(WIDTH)
        torch.linalg.solve(system.mT, torch.randn(outputs, WIDTH).mT)
    _add(clock, "straightforward, solving (scaled)", 2 * (time.process_time() - began) / 3 * 32)
    one = torch.randn(800, WIDTH, dtype=torch.float64)
    square = torch.eye(WIDTH, dtype=torch.float64)
    began = time.process_time()
    for _ in OUTPUTS:
        _ = one @ square
    _add(clock, "limit: one float64 product a layer", time.process_time() - began)


def _pairs(number: int, sentences: int) -> list[PromptPair]:
    # The sentences of concepts differ; those of the anchor are the same for all.
    name = f"person {number}"
    return [
        PromptPair(f"a photo of {name} in place {index}", f"a photo of a person in place {index}")
        for index in range(sentences)
    ]


def _lora(weights: dict[str, Tensor], source: torch.Generator) -> Lora:
    factors = {
        name.removesuffix(".weight"): Factors(
            torch.randn(RANK, WIDTH, generator=source) / WIDTH,
            torch.randn(len(weight), RANK, generator=source) / WIDTH,
        )
        for name, weight in weights.items()
    }
    return Lora(factors, LoraShape(RANK, float(RANK)))


def _encoder(states: str) -> Any:
    from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

    import mace_exp

    tokens = Path(mace_exp.__file__).parent / "mini" / "weights" / "tokenizer"
    tokenizer = CLIPTokenizer.from_pretrained(tokens, model_max_length=LENGTH)
    if states == "random":
        return RandomStates(tokenizer)
    config = CLIPTextConfig(
        vocab_size=49408, hidden_size=WIDTH, intermediate_size=3072, num_hidden_layers=12
    )
    config.num_attention_heads = 12
    return PromptEncoder((Branch(tokenizer, CLIPTextModel(config).eval()),))


if __name__ == "__main__":
    main()
