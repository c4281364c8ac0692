"""The mathematics: graphs, regions, specifications, bounds, certificates.

This file imports nothing, so that `provenn.verifier.check` loads without torch.
"""
