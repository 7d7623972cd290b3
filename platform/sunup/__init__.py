"""Sunup: serverless real-time prediction for classic models."""

__version__ = "0.1.0"
