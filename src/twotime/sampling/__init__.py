"""Posteriors: densities, chains, shards and their combination."""
