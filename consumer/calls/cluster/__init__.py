"""What a worker knows of the others: who lives, which calls have ended, what they measured."""
