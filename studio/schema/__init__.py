"""The words of the program: what it can be asked, and what it can answer. Pydantic and the standard library only."""
