"""Users who behave like nobody else, and their quarantine."""
