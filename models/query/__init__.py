"""Networks of a query: files fitted to declarations, joined into one network, and run each by itself."""
