"""The card of a fitted world model: what it is of, how it was fitted, how good it is."""

from rich.table import Table

from dreamenv.data import Replay
from dreamenv.evaluation.evaluate_model import PICTURE_FILE
from dreamenv.evaluation.fidelity import Fidelity
from dreamenv.evaluation.report import tables
from dreamenv.models.world_model import WorldModel
from dreamenv.registration import NAMESPACE
from dreamenv.training.validation import Validation

CARD_FILE = "README.md"


def model_card(
    name: str,
    command: str,
    world_model: WorldModel,
    replay: Replay,
    validation: Validation | None,
    opened_by: str | None = None,
) -> str:
    """Writes the card.

    Args:
        name: Of the world model.
        command: The one that fitted it.
        world_model: With its origin.
        replay: What it was fitted to.
        validation: How good it is; None where no episode was held out.
        opened_by: The Python expression that dreams of it; by default `gymnasium.make` with an id.

    Returns:
        Markdown.
    """
    environment = replay.environment
    parameters = sum(parameter.numel() for parameter in world_model.parameters())
    channels, height, width = environment.obs_shape
    default = f'gymnasium.make("{NAMESPACE}/{name}-v0")'
    lines = [
        f"# {name}",
        "",
        f"A world model of `{environment.id}`, fitted by dreamenv:",
        "",
        f"    {command}",
        "",
        f"- frames: {height}x{width} pixels, {channels} channels",
        f"- actions: {', '.join(environment.action_meanings)}",
        f"- parameters: {parameters:,}",
        f"- fitted to {replay.num_steps:,} steps of {replay.num_episodes:,} episodes, of which "
        f"{sum(info.held_out for info in replay.infos):,} are held out",
        "",
        "## Dream of it",
        "",
        "    import dreamenv, gymnasium",
        f"    env = {opened_by or default}",
        "",
        "## On held-out episodes",
        "",
    ]
    if validation is None:
        return "\n".join([*lines, "Not measured: no episode was held out.", ""])
    rows = ["| figure | value |", "|---|---|"]
    rows += [f"| {label} | {value} |" for label, value in figures(validation)]
    return "\n".join([*lines, *rows, ""])


def fidelity_section(fidelity: Fidelity) -> str:
    """Writes what is added to the card of a world model whose dreams were measured.

    Returns:
        Markdown, with the picture that lies beside the card.
    """
    lines = ["", "## Dreamt along held-out episodes", "", f"    {fidelity.command}", ""]
    for table in tables(fidelity):
        lines += [f"{table.title}:", "", *_as_markdown(table), "", f"({table.caption})", ""]
    shown = ", ".join(str(step) for step in fidelity.pictured_steps)
    lines += [f"![real frames above dreamt ones]({PICTURE_FILE})", ""]
    return "\n".join([*lines, f"Real frames above dreamt ones, after {shown} steps.", ""])


def figures(validation: Validation) -> list[tuple[str, str]]:
    """Returns the figures of a validation as labels and values to print."""
    rows = [("next frame, PSNR", format_psnr(validation))]
    rows += [
        (
            f"denoising loss at σ = {level:.3g}",
            f"{loss:.4f}" if validation.frames and loss is not None else "-",
        )
        for level, loss in validation.losses
    ]
    named = zip(("reward -1", "reward 0", "reward 1"), validation.rewards, strict=True)
    for label, detection in (*named, ("end", validation.end)):
        rows.append((f"{label}, precision / recall (times)", str(detection)))
    return rows


def format_psnr(validation: Validation) -> str:
    """Returns the PSNR of the next frame to print."""
    if validation.frames == 0:
        return "-"
    return "exact" if validation.psnr is None else f"{validation.psnr:.2f} dB"


def _as_markdown(table: Table) -> list[str]:
    rows = zip(*(column.cells for column in table.columns), strict=True)
    heads = [str(column.header) for column in table.columns]
    cells = [heads, ["---"] * len(heads), *([str(cell) for cell in row] for row in rows)]
    return [f"| {' | '.join(row)} |" for row in cells]
