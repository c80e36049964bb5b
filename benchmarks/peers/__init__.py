"""The same work in other stream processors: see README.md."""
