"""Many inputs at once: data files, one result an input and radius, a summary, one certificate bundle."""
