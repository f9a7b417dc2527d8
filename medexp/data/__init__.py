"""Data sets: a data set is a function `load(root, ...) -> Dataset`, named by its dotted path."""

from medexp.data.base import Dataset, Info, Split

__all__ = ["Dataset", "Info", "Split"]
