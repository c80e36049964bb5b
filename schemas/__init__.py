"""What crosses a topic: one pydantic model a topic, the single source of truth."""
