"""Episodes, the replay, sampling, Minari in and out."""

from dreamenv.data.crops import Cropper
from dreamenv.data.episode import Episode
from dreamenv.data.index import EpisodeInfo, RewardSigns
from dreamenv.data.minari import from_minari, to_minari
from dreamenv.data.replay import Replay
from dreamenv.data.sampling import PUBLISHED_WEIGHTS, SegmentSampler
from dreamenv.data.segments import Segments, consecutive_segments
from dreamenv.data.statistics import change_std
from dreamenv.data.tensors import Split

__all__ = [
    "PUBLISHED_WEIGHTS",
    "Cropper",
    "Episode",
    "EpisodeInfo",
    "Replay",
    "RewardSigns",
    "SegmentSampler",
    "Segments",
    "Split",
    "change_std",
    "consecutive_segments",
    "from_minari",
    "to_minari",
]
