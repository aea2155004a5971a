"""Decoupled Spatial Neural Attention (DSNA): from pictures with image labels to segmentation.

Data flows one way through the modules, and each is a chapter of the book::

    data -> backbones, attention -> training -> maps -> annotate, crf -> metrics

Source of the method: Zhang, Lin, Cai, Shen, Shen, Kot, "Decoupled Spatial Neural Attention for
Weakly Supervised Semantic Segmentation" (arXiv:1803.02563).
"""

__version__ = "0.1.0"
