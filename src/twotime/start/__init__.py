"""Where fits begin: starts from the data."""
