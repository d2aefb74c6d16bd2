"""What the data say: one reduction, least squares, uncertainties."""
