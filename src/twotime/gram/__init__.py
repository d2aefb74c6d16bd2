"""Gram matrices: the one reduction under fits, posteriors and error bars."""
