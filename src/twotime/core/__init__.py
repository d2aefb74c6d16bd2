"""Module path of the functional interface, kept for those who import it."""
