"""dreamenv: learned world models as Gymnasium environments."""
