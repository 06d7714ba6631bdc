"""A machine with an accelerator, measured in minutes; the command is in `__main__`."""
