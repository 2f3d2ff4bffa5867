"""Tutorials, and applications of the demo's shop in several stacks."""
