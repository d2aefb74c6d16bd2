"""Physics: rates, clocks and models; no files, no solver."""
