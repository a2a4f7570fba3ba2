"""Companions of the array for what is no matrix product: softmax and layer normalisation, each with its adjoint."""
