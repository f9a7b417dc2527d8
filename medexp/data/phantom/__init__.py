"""Synthetic stand-ins, each written in its public data set's own on-disk layout."""
