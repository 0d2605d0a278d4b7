"""A step of dreams as one CUDA graph: one launch, where hundreds of small kernels wait for theirs.

What a step computes has the same shapes whatever the dreams do, so that it can be recorded once
and played again and again (see the CUDA programming guide, "CUDA Graphs").
"""

from collections.abc import Callable

import torch
from torch import Tensor

from dreamenv.dream.state import DreamState
from dreamenv.dream.step import DreamStep

_WARM_UP = 3  # runs before it: libraries choose their kernels and take their memory

Transition = Callable[[DreamState, Tensor], tuple[DreamState, DreamStep]]
"""Takes the state of N dreams and their actions, int64 [N], to the next state and the step."""

Outcome = tuple[DreamState, DreamStep]
"""What a transition returns."""


class RecordedTransition:
    """A transition that was recorded, for dreams in any state.

    Args:
        transition: It waits for nothing, and its shapes do not depend on what it is given.
        state: Of as many dreams as it will be played for, on a GPU.
        actions: int64 [N].
        generator: Where its chance comes from. It goes on as it would without the recording.
    """

    def __init__(
        self,
        transition: Transition,
        state: DreamState,
        actions: Tensor,
        generator: torch.Generator,
    ) -> None:
        # A dream may take its first step in inference mode and others out of it: these are written
        # to in either.
        with torch.inference_mode(False), torch.no_grad():
            self._state, self._actions = state.clone(), actions.clone()
            self._outcome, self._play = record(
                lambda: transition(self._state, self._actions), generator
            )

    def __call__(self, state: DreamState, actions: Tensor) -> Outcome:
        """Plays it: what the transition returns, in memory of its own."""
        self._state.copy_(state)
        self._actions.copy_(actions)
        self._play()
        after, step = self._outcome
        return after.clone(), DreamStep(*(tensor.clone() for tensor in step))


def record(
    run: Callable[[], Outcome], generator: torch.Generator
) -> tuple[Outcome, Callable[[], None]]:
    """Records a run on the generator's GPU.

    Args:
        run: What is recorded.
        generator: Where its chance comes from.

    Returns:
        The tensors that each playing fills, and what plays it.
    """
    with torch.cuda.device(generator.device):
        before = generator.get_state()
        stream, side = torch.cuda.current_stream(), torch.cuda.Stream()
        side.wait_stream(stream)
        with torch.cuda.stream(side):
            for _ in range(_WARM_UP):
                run()
        stream.wait_stream(side)
        generator.set_state(before)
        graph = torch.cuda.CUDAGraph()
        graph.register_generator_state(generator)
        # Within a caller's autocast, cast weights outlive ours: those of the warm-up would be
        # recorded by their addresses, those of the recording used outside it.
        torch.clear_autocast_cache()
        # On a stream of this GPU: torch's own for recordings stays on the first one's.
        with torch.cuda.graph(graph, stream=side):
            outcome = run()
        torch.clear_autocast_cache()
    return outcome, graph.replay
