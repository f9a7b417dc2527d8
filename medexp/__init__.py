"""medexp: config-driven experiments in medical-image classification."""

__version__ = "0.1.0"
