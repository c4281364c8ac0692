"""Where users meet it: the service, its jobs, the command line."""
