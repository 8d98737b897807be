"""Jobs sent to a cluster: checked here first, followed to their end, with their own exit code."""
