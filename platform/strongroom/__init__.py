"""Strongroom: a secured multi-tenant model-as-a-service platform. This package holds the version and nothing else."""

__version__ = "0.1.0"
