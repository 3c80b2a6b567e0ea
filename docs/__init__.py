"""The documentation; ``python -m docs.generate`` brings its tables in line with the code."""
