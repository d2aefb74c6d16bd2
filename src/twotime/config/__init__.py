"""What the user asks for: parameters, their spaces and priors, and configuration files."""
