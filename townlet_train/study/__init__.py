"""Does each term of the warm start earn its place? Conditions that differ in one, run on equal seeds and steps."""
