"""What operators and developers use around the worker; its Python is tooling and needs the standard library only."""
