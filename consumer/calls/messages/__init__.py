"""Messages as they come in and are sent on: parsing, headers, sizes, deadlines."""
