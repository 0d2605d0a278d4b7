"""The folder of a run."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from dreamenv.config import Config
from dreamenv.data.disk import naming_disk_errors
from dreamenv.errors import ConfigError, FormatError
from dreamenv.files import atomic_file, remove_abandoned


@dataclass(frozen=True)
class RunFolder:
    """What a run keeps, and where.

    Attributes:
        path: The folder.
    """

    path: Path

    @property
    def config(self) -> Path:
        """The run's configuration."""
        return self.path / "config.json"

    @property
    def replay(self) -> Path:
        """The episodes it collected."""
        return self.path / "replay"

    @property
    def checkpoint(self) -> Path:
        """What it needs to go on."""
        return self.path / "checkpoint" / "trainer.pt"

    @property
    def world_model(self) -> Path:
        """What it has fitted."""
        return self.path / "world_model"

    @property
    def agent(self) -> Path:
        """What learned in the real game, without a world model."""
        return self.path / "agent"

    @property
    def best(self) -> Path:
        """What it had learned when its agent did best."""
        return self.path / "best"

    @property
    def evaluation(self) -> Path:
        """Figures and pictures of its validations."""
        return self.path / "evaluation"

    @property
    def results(self) -> Path:
        """What came of it, once it is finished."""
        return self.path / "results.json"

    def check(self, config: Config, *, resume: bool, overwrite: bool) -> None:
        """Checks that a run can begin here, or go on; changes nothing.

        Args:
            config: The run's configuration.
            resume: Go on with the run that is there.
            overwrite: Remove the run that is there.

        Raises:
            FormatError: There is a run and neither was asked for, or there is none to go on with.
            ConfigError: The run to go on with has another configuration.
        """
        if resume:
            self._check_same(config)
        elif self.config.exists() and not overwrite:
            raise FormatError(
                f"{self.path} holds a run already; add --resume to go on with it, --overwrite to "
                f"remove it, or --out to name another folder"
            )

    def begin(self, config: Config) -> None:
        """Makes the folder for a new run, in the place of one that is there.

        Args:
            config: The run's configuration.

        Raises:
            DreamenvError: The folder cannot be written.
        """
        with naming_disk_errors(self.path):
            if self.config.exists():
                self.remove()
            # One of a run whose configuration is gone would be taken for the new one's.
            shutil.rmtree(self.checkpoint.parent, ignore_errors=True)
            self.path.mkdir(parents=True, exist_ok=True)
            with atomic_file(self.config) as beside:
                beside.write_text(json.dumps(config.to_dict(), indent=2) + "\n")

    def go_on(self) -> None:
        """Removes what a kill left half-written in the folders of the run."""
        for folder in (self.path, self.replay, self.checkpoint.parent, self.evaluation):
            remove_abandoned(folder)

    def remove(self) -> None:
        """Removes what a run writes, and nothing else that may stand beside it."""
        models = self.world_model, self.agent, self.best
        for folder in (self.replay, self.checkpoint.parent, *models, self.evaluation):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.config, self.results, *self.path.glob("events.out.tfevents.*")):
            file.unlink(missing_ok=True)

    def _check_same(self, config: Config) -> None:
        if not self.config.exists():
            raise FormatError(f"{self.path} holds no run to go on with; leave out --resume")
        try:
            data = json.loads(self.config.read_text())
        except ValueError as error:
            raise FormatError(
                f"{self.config} is not JSON ({error}); restore it, or begin another run"
            ) from None
        stored = type(config).from_dict(data, str(self.config))
        difference = stored.first_difference(config)
        if difference is not None:
            raise ConfigError(
                f"{self.path} was begun with {difference}; give the settings it was begun with, or "
                f"begin another run"
            )
