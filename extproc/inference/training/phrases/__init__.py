"""The phrases that training data is composed of: one grammar per file. Owns: no code."""
