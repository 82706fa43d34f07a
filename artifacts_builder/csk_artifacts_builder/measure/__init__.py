"""What a build counts, measures and checks."""
