"""Weight-preserving rewrites, one a file: what, why, when it refuses."""
