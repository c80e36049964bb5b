"""What marketing does about a segment change."""
