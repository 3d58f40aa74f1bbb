"""The role of a kernel: two hooks below, two calls above, GPyTorch beside."""
