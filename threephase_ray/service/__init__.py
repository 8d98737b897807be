"""An exported classifier behind HTTP, with Ray Serve."""
