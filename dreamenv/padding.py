"""What stands where an episode has no frame: before its first one and after its final one."""

PADDING_LEVEL = 128
"""Mid grey: within one half of a level of 0 in [-1, 1], the published padding."""
