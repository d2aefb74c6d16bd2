"""Least squares: `fit_nlsq`."""
