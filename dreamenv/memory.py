"""Want of memory, which torch and numpy tell in ways of their own."""


def lacks_memory(error: BaseException) -> bool:
    """Says whether an error is that memory does not suffice, of a GPU or of the host."""
    # By its name, so as not to wait for torch; what torch raises of a host's has no class of its
    # own.
    is_of_gpu = type(error).__name__ == "OutOfMemoryError"
    return isinstance(error, MemoryError) or is_of_gpu or "can't allocate memory" in str(error)
