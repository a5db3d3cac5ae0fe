"""`python -m mace_exp.preservation build|import|show`: files of preservation statistics.

A file holds the sum of e e^T over the token states of many captions, one matrix for all layers. A
run uses it with preservation.prior.cache=FILE or preservation.domain.cache=FILE.
"""

from __future__ import annotations

import argparse
import logging
import sys
from pathlib import Path

from mace_exp.cli.common import add_model_arguments, chosen_model, run_command
from mace_exp.concepts.captions import (
    NAME_COLUMNS,
    names_in_templates,
    read_captions,
    read_templates,
)
from mace_exp.concepts.prompts import domain_captions
from mace_exp.models.loading import loaded

NAME = "python -m mace_exp.preservation"
log = logging.getLogger("mace_exp.preservation")


def main(arguments: list[str] | None = None) -> int:
    """Run one of the three commands; return the exit code, 2 after an error message."""
    parsed = _parser().parse_args(arguments)
    return run_command(NAME, lambda: parsed.command(parsed))


def build(arguments: argparse.Namespace) -> None:
    """Encode captions and write the sum of e e^T over their tokens; resume an interrupted build."""
    captions = _captions(arguments)
    model = chosen_model(arguments)
    from mace_exp.models.fingerprints import text_fingerprint
    from mace_exp.models.text import readable, stable_diffusion_encoder
    from mace_exp.preservation.build import CacheBuild
    from mace_exp.utils.progress import progress

    pipeline = loaded(model, arguments.device)
    encoder = stable_diffusion_encoder(pipeline)
    captions = readable(encoder, captions)
    job = CacheBuild(
        encoder, text_fingerprint(pipeline), captions, arguments.to, arguments.batch_size
    )
    with progress("captions", len(captions), "caption") as advance:
        made = job.run(advance)
    log.info("%s: %d captions, text encoder %s", arguments.to, made.count, made.fingerprint)


def import_published(arguments: argparse.Namespace) -> None:
    """Check a published cache against the model's weights and write its single matrix."""
    if not arguments.file.is_file():
        raise ValueError(f"{arguments.file} is not a file")
    if not arguments.tolerance >= 0:
        raise ValueError(
            f"--tolerance {arguments.tolerance:g}: at least 0, as in --tolerance 0.001"
        )
    model = chosen_model(arguments)
    from mace_exp.models.fingerprints import text_fingerprint
    from mace_exp.preservation import published

    pipeline = loaded(model, arguments.device)
    made = published.import_published(
        arguments.file,
        pipeline.unet,
        text_fingerprint(pipeline),
        tolerance=arguments.tolerance,
    )
    made.save(arguments.to)
    log.info("%s: a raw sum, count 1, text encoder %s", arguments.to, made.fingerprint)


def show(arguments: argparse.Namespace) -> None:
    """Print the metadata of a file of statistics."""
    from mace_exp.preservation.statistics import read_statistics

    found = read_statistics(arguments.file)
    log.info("captions      %d", found.count)
    log.info("width         %d", len(found.total))
    log.info("text encoder  %s", found.fingerprint)
    log.info("captions hash %s", found.prompts_hash)


def _captions(arguments: argparse.Namespace) -> list[str]:
    """Return the captions in --captions, or --names inserted into templates; at most --limit."""
    if arguments.captions is not None:
        captions = read_captions(arguments.captions, arguments.column)
    else:
        names = read_captions(arguments.names, arguments.column, known=NAME_COLUMNS)
        if arguments.templates is not None:
            templates = list(read_templates(arguments.templates).values())
            captions = names_in_templates(names, templates)
        else:
            captions = _in_training_templates(names, arguments.kind)
    return captions if arguments.limit is None else captions[: arguments.limit]


def _in_training_templates(names: list[str], kind: str) -> list[str]:
    from mace_exp.concepts.prompts import TRAINING_TEMPLATES

    count = len(names) * len(TRAINING_TEMPLATES)
    people, artists = (names, []) if kind == "person" else ([], names)
    return domain_captions(people, artists, count)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=NAME, description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(required=True, metavar="build|import|show")
    _add_build(commands.add_parser("build", help="encode captions", description=build.__doc__))
    importer = commands.add_parser(
        "import", help="convert a published .pt cache", description=import_published.__doc__
    )
    importer.add_argument("file", type=Path, metavar="FILE.pt")
    importer.add_argument("--to", type=Path, required=True, metavar="FILE.safetensors")
    importer.add_argument(
        "--tolerance", type=float, default=1e-3, help="relative rounding error (default: 0.001)"
    )
    add_model_arguments(importer)
    importer.set_defaults(command=import_published)
    viewer = commands.add_parser("show", help="print a file's metadata", description=show.__doc__)
    viewer.add_argument("file", type=Path, metavar="FILE.safetensors")
    viewer.set_defaults(command=show)
    return parser


def _add_build(parser: argparse.ArgumentParser) -> None:
    source = parser.add_mutually_exclusive_group(required=True)
    source.add_argument(
        "--captions",
        type=Path,
        metavar="FILE",
        help="COCO's caption JSON, a table (.csv, .tsv, .jsonl), or text, one per line",
    )
    source.add_argument(
        "--names", type=Path, metavar="FILE", help="names, one per line, inserted into templates"
    )
    parser.add_argument(
        "--column", help="of a table (default: caption, prompt or text; of names: name)"
    )
    parser.add_argument(
        "--kind",
        choices=("person", "style"),
        default="person",
        help="kind of the built-in templates for --names (default: person)",
    )
    parser.add_argument(
        "--templates", type=Path, metavar="FILE", help="custom templates, {} for the name"
    )
    parser.add_argument("--limit", type=_whole, metavar="N", help="use only the first N captions")
    parser.add_argument("--to", type=Path, required=True, metavar="FILE.safetensors")
    parser.add_argument("--batch-size", type=_whole, default=64, help="(default: 64)")
    add_model_arguments(parser, default="mini")
    parser.set_defaults(command=build)


def _whole(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


if __name__ == "__main__":
    sys.exit(main())
