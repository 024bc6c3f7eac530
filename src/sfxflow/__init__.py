"""Serial crystallography from raw frames to merged intensities."""

__version__ = "0.1.0"
