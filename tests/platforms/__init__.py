"""What other platforms compute, held against this one: the conformance vectors, learned tasks, travelling states."""
