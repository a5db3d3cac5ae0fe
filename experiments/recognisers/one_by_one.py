"""Answer `judge=command` by a recogniser that is a command line for one image.

    python one_by_one.py --line '(?P<name>.+): (?P<probability>[0-9.]+)' --nothing 'no faces' \
        -- python inference.py --image_path {}

Reads the table of files on standard input and runs the command behind `--` for each, with the
file in place of {}. Every line of its output in which the expression `--line` is found is a face:
its groups `name` and `probability` are answered. `--nothing` is found in the output for an image
without a face. An image with neither stops everything: silence is not taken for "no face".

Runs in the recogniser's environment, from Python 3.6 on, and needs no package (`--jpg`: Pillow).
"""

import argparse
import csv
import re
import subprocess
import sys
import tempfile
from multiprocessing.pool import ThreadPool
from pathlib import Path

LAST = 400
"""Characters of an output that are quoted in an error."""


class Unanswered(Exception):
    """What went wrong with an image. (`SystemExit` would end a thread of the pool, which would then
    wait for it.)"""


def main() -> None:
    """Read files, answer each in their order, and write the table."""
    options = parsed(sys.argv[1:])
    files = [row["file"] for row in csv.DictReader(sys.stdin)]
    with tempfile.TemporaryDirectory() as folder, ThreadPool(options.jobs) as pool:
        tasks = [(options, file, Path(folder) / f"{i}.jpg") for i, file in enumerate(files)]
        try:
            found = pool.starmap(faces, tasks, 1)
        except (Unanswered, OSError) as error:
            sys.exit(str(error))
    table = csv.writer(sys.stdout, lineterminator="\n")
    table.writerow(["file", "class", "probability"])
    for file, rows in zip(files, found):  # noqa: B905 (`strict` came with Python 3.10)
        table.writerows([file, name, probability] for name, probability in rows or [("", "")])


def parsed(arguments: "list[str]") -> argparse.Namespace:
    """Read the arguments; those behind `--` are the command."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--line", required=True, help="expression of a face")
    parser.add_argument("--nothing", required=True, help="expression of an image without a face")
    parser.add_argument("--percent", action="store_true", help="probabilities go up to 100")
    parser.add_argument("--jpg", action="store_true", help="give JPEG files to the command")
    parser.add_argument("--folder", help="folder in which the command is run")
    parser.add_argument("--jobs", type=int, default=1, help="images that are asked at once")
    parser.add_argument("command", nargs="+", help="the command, with {} for the file")
    options = parser.parse_args(arguments)
    if not any("{}" in word for word in options.command):
        parser.error("the command has no {} for the file")
    options.line, options.nothing = re.compile(options.line), re.compile(options.nothing)
    if {"name", "probability"} - set(options.line.groupindex):
        parser.error("--line needs the groups (?P<name>...) and (?P<probability>...)")
    return options


def faces(options: argparse.Namespace, file: str, jpg: Path) -> "list[tuple[str, float]]":
    """Return name and probability of each face in an image. Raises Unanswered."""
    if options.jpg:
        from PIL import Image

        Image.open(file).convert("RGB").save(str(jpg), quality=95, subsampling=0)
    given = [word.replace("{}", str(jpg) if options.jpg else file) for word in options.command]
    process = subprocess.Popen(
        given,
        cwd=options.folder,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    output, errors = process.communicate()
    told = output.decode(errors="replace")
    if process.returncode:
        last = errors.decode(errors="replace")[-LAST:]
        raise Unanswered(f"{file}: ended with code {process.returncode}: {last}")
    found = [match for match in map(options.line.search, told.splitlines()) if match]
    if not found and not options.nothing.search(told):
        raise Unanswered(f"{file}: neither --line nor --nothing is in its output: {told[-LAST:]!r}")
    scale = 100 if options.percent else 1
    return [
        (match.group("name").strip(), float(match.group("probability")) / scale) for match in found
    ]


if __name__ == "__main__":
    main()
