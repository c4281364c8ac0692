"""Who proves it, and for how long: one file a backend, one table of them."""
