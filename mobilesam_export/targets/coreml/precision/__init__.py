"""Compressed precisions of Core ML packages."""
