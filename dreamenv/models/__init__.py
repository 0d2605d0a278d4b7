"""What is learned: torch modules, tensors in, tensors out.

It knows nothing of Gymnasium, of data on disk or of training loops.
"""
