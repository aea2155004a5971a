r"""Segmentation networks: from pseudo-annotations to masks of pictures without any label (Sec. IV-A of the paper).

Two networks with one code path, both with a feature cell for every 8 pixels, so that a crop of 8k + 1 pixels has k + 1
cells and 321 have 41:

- DeepLab-LargeFOV on VGG-16 (Chen et al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected
  CRFs", ICLR 2015): the last two pooling layers keep their stride at 1, conv5 is dilated by 2, fc6 is a 3x3 convolution
  dilated by 12 with 1024 channels.
- a ResNet-101 (or -50, or EfficientNet-lite0 for small machines) of output stride 8 with one 3x3 convolution dilated by
  12 and a classifier.

The loss is the cross-entropy on the network's own grid; a cell's label is that of the pixel at its center, and void
(255) takes no part. At test time a picture is shown at several scales, the class probabilities are averaged at its full
size, and a dense CRF follows its edges. No image label is read.
"""
