"""Other weakly supervised segmentation methods, one module each, on this book's backbones, data and labels."""
