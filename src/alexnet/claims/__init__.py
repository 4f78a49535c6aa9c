"""The paper's claims as experiments that can be run: what is varied, what is measured, what holds."""
