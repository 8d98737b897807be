"""Runs shown in TensorBoard, MLflow and Weights & Biases while they train."""
