"""`bench generate --peers`: the program beside other ways to run the same model, each contender in a process of its own."""
