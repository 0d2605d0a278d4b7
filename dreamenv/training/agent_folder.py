"""The folder of an agent that was trained in a dream."""

from dataclasses import dataclass
from pathlib import Path

from dreamenv.data.disk import naming_disk_errors
from dreamenv.errors import FormatError
from dreamenv.files import remove_abandoned


@dataclass(frozen=True)
class AgentFolder:
    """What training an agent leaves, and where.

    Attributes:
        path: The folder; the events for TensorBoard are in it as well.
    """

    path: Path

    @property
    def agent(self) -> Path:
        """The agent, as stable-baselines3 saves it."""
        return self.path / "agent.zip"

    @property
    def results(self) -> Path:
        """Its settings and its scores."""
        return self.path / "results.json"

    @property
    def film(self) -> Path:
        """How it plays."""
        return self.path / "agent.gif"

    def check(self, *, overwrite: bool) -> None:
        """Checks that an agent can be left here; changes nothing.

        Args:
            overwrite: Replace one that is there.

        Raises:
            FormatError: There is something, and it is not to be replaced.
            DreamenvError: The disk does not let it be read.
        """
        with naming_disk_errors(self.path):
            is_file = self.path.exists() and not self.path.is_dir()
            is_taken = self.path.is_dir() and any(self.path.iterdir())
        if is_file:
            raise FormatError(f"{self.path} is a file; add --out to name a folder")
        if is_taken and not overwrite:
            raise FormatError(
                f"{self.path} is there already; add --overwrite to replace the agent in it, or "
                f"--out to name another folder"
            )

    def begin(self) -> None:
        """Makes the folder, without an agent: removes what was left of one, and nothing else."""
        self.path.mkdir(parents=True, exist_ok=True)
        events = self.path.glob("events.out.tfevents.*")
        for file in (self.agent, self.results, self.film, *events):
            file.unlink(missing_ok=True)
        remove_abandoned(self.path)
