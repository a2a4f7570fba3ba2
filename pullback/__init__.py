"""Differentiable hardware."""
