"""Segments: learned, published, assigned, and named."""
