"""Side-by-side measurements: this project, its peers, and the limits of the machine."""
