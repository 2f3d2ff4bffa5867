"""recstore as a library: `Recstore` in `store`, its typed rows in `rows`, a module for each group of commands."""
