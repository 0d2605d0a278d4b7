"""The dream itself: where dreams begin, the batched core, and its faces."""
