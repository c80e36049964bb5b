"""Rolling features of every user, in columns."""
