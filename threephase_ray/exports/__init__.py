"""Exported models taken further: ONNX, and a hub."""
