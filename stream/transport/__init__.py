"""Where topics live: Kafka, or one SQLite directory."""
