"""Data sets: a data set is a function `load(root, ...) -> Pool` (or Dataset), named by its path."""

from medexp.data.base import Dataset, Info, NewFiles, Pool, Split

__all__ = ["Dataset", "Info", "NewFiles", "Pool", "Split"]
