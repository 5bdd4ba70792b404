"""Painting: from a `ResolvedRequest` to events and pictures."""
