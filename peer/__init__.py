"""Part of shoal."""
