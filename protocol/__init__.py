"""What two machines must agree about: pure values and rules, no clock, no randomness, no I/O."""
