"""What ``bench sprout`` is made of: prompts, painting, verdicts, and how they become figures."""
