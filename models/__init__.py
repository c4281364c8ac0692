"""How a network gets in, and runs."""
