"""The rules of farthing, pure: no I/O, no clock, no randomness, no logging. Time and ids are arguments."""
