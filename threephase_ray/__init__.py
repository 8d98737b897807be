"""Three-phase fine-tuning of text classifiers as distributed batch jobs on Ray and DeepSpeed."""

__version__ = "0.1.0"
