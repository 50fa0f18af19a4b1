"""A comparison written down: table, figures, JSON and one HTML page."""
