"""Prediction in bulk: files in, files out, with an exported classifier."""
