"""Functional interfaces of other programs, on the same models."""
