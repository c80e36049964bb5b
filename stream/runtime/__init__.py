"""The runtime: the stage interface, the runner that commits, the changelog, health and metrics."""
