"""Fitting the world model to what was collected of a real environment."""
