"""Knowledge intensity: whether the method's premise holds for a network."""
