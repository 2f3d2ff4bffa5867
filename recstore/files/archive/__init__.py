"""A generation as one file that NumPy alone can read, and back: `recstore export` and `recstore import`."""
