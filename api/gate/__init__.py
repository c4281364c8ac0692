"""The gate of a build: thresholds on what is proved of networks, read from provenn.toml, and their report.

config (the file) -> plan (its checks, and the questions that they ask) -> cache, measure or remote (what is found) ->
checks, by thresholds (each passed, failed or unknown) -> report (and a file a format).
"""
