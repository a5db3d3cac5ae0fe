"""What Hydra writes into a run's folder before the run is looked at, and how it is taken back."""

from pathlib import Path
from typing import Any, ClassVar

from hydra.experimental.callback import Callback
from omegaconf import DictConfig

_WRITTEN = (".hydra/config.yaml", ".hydra/hydra.yaml", ".hydra/overrides.yaml", "run.log")
_STATUS = "status.json"


class RunFiles(Callback):
    """Hears from Hydra, which builds it, where a run is written, before it is; the class remembers
    what lay there under the names of Hydra's own files (None: no such file)."""

    found: ClassVar[dict[Path, bytes | None]] = {}

    def on_run_start(self, config: DictConfig, **kwargs: Any) -> None:
        RunFiles.found = {}
        folder = Path(config.hydra.run.dir).absolute()
        RunFiles.found = {folder / name: _content(folder / name) for name in (*_WRITTEN, _STATUS)}

    @classmethod
    def restore(cls) -> None:
        """Write what was found, and remove what was not there, of a run that did not begin: one
        that did has said so in its status. run.log is only ever added to."""
        status = {file: was for file, was in cls.found.items() if file.name == _STATUS}
        if any(_content(file) != was for file, was in status.items()):
            return
        for file, content in cls.found.items():
            if content is None:
                file.unlink(missing_ok=True)
            elif file.suffix == ".yaml":
                file.write_bytes(content)


def _content(file: Path) -> bytes | None:
    return file.read_bytes() if file.exists() else None
