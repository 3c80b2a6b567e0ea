"""Messages in and out: parsing, headers, sizes, deadlines."""
