"""resegment: a streaming event processor that moves people between segments as they behave."""

__version__ = "0.1.0"
