"""From anyone's photographs to batches on a device.

``sources`` finds labelled images, ``prepare`` makes a prepared data set of them, ``shards`` opens
it. ``loader`` decodes batches and replaces corrupt images; ``augment`` turns batches into what the
network sees, by choices that ``training.randomness`` draws. Its ``Normaliser`` makes RGB BGR.
"""
