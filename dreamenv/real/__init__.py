"""The real counterpart of a dream: the same spaces and the same preprocessing."""

from dreamenv.real.factory import describe, make_single, make_vector
from dreamenv.real.single_env import RealEnv
from dreamenv.real.vector_env import RealVectorEnv

__all__ = ["RealEnv", "RealVectorEnv", "describe", "make_single", "make_vector"]
