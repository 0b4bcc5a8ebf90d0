"""The words of the house: facts, verdicts, lifecycles, errors. Pure; imports nothing of ours."""
