"""From anyone's photographs to batches on a device.

``sources`` finds labelled images, ``prepare`` makes a prepared data set of them, ``shards`` opens
it, ``loader`` draws batches from it and ``augment`` turns them into what the network sees.
"""
