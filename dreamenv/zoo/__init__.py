"""The bundled worlds: who plays while their data is collected, and what is measured of them."""

from pathlib import Path

RECIPES = Path(__file__).parent / "recipes"
