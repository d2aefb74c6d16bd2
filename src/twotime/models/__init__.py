"""Laws of the two-time correlation: rates, models, scaling."""
