"""Posteriors: `fit_cmc`."""
