"""The fast forms of the layers in `layers.py`: tensors in, tensors out, nothing above them."""
