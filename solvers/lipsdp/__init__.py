"""Lipschitz constants by semidefinite programs in the multipliers alone (verifier.bounds.quadratic)."""
