import numpy as np

from dreamenv.real.policy import RandomPolicy, to_channels_first


def test_random_play_takes_all_actions_equally_often_and_follows_its_seed() -> None:
    obs, starts = np.zeros((3000, 1, 2, 2), np.uint8), np.zeros(3000, np.bool_)
    actions = RandomPolicy(3, seed=1).act(obs, starts)
    assert actions.dtype == np.int64
    np.testing.assert_allclose(np.bincount(actions) / 3000, 1 / 3, atol=0.05)
    np.testing.assert_array_equal(RandomPolicy(3, seed=1).act(obs, starts), actions)
    assert (RandomPolicy(3, seed=2).act(obs, starts) != actions).any()


def test_channels_come_first() -> None:
    frames = np.arange(2 * 3 * 4 * 5, dtype=np.uint8).reshape(2, 3, 4, 5)
    turned = to_channels_first(frames)
    assert turned.shape == (2, 5, 3, 4)
    assert turned.flags.c_contiguous
    assert turned[1, 2, 0, 3] == frames[1, 0, 3, 2]
