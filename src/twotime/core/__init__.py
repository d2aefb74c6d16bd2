"""Functional interface of an older program, under its module path."""
