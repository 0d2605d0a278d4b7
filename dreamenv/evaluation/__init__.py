"""How good agents and dreams are: scores in the real game, and the fidelity of a dream."""
