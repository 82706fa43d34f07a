"""What is right and fast on this device: measured, and remembered."""
