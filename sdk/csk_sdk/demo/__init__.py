"""`csk-sdk demo`: handwritten digits, learned with and without forgetting."""
