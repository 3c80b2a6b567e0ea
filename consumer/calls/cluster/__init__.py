"""What a worker knows of the others: which are alive, which calls have ended, and what they measured."""
