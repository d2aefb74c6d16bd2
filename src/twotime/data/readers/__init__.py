"""Readers of data files, one module a layout."""
