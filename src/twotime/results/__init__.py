"""What fits and samplers return: values, their words, and their files."""
