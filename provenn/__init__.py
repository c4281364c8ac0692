"""Provenn proves things about neural networks and hands back certificates that need not be trusted."""

__version__ = "0.1.0"
