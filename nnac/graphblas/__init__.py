"""Sparse matrix products by SuiteSparse:GraphBLAS.  `library` is the C library, `kernel` an integer kernel of a pruned
network on it, `layers` the layer of a real-valued network in the forms of the literature, `challenge` the Sparse DNN
Graph Challenge.

Source: Kepner et al. 2017, "Enabling massive deep neural networks with the GraphBLAS", arXiv 1708.02937; Davis 2019,
SuiteSparse.
"""
