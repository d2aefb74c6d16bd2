"""Posteriors: densities in unbounded coordinates, chains of shards of the points, their product."""
