"""What text contains: personal data, secrets, attacks. Pure functions over text; nothing here does I/O."""
