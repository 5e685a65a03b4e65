"""The built-in data set: procedural shapes, made in seconds and always the same."""

from pipelines.datasets.shapes100.builder import Shapes100

__all__ = ["Shapes100"]
