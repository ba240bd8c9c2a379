"""Deploy-shaped modules made from the reference's weights."""
