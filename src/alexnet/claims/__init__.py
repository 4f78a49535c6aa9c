"""The paper's claims as experiments: what is varied, what is measured, what holds."""
