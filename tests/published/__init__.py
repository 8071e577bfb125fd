"""The published file layouts, and slow references of what the published models compute."""
