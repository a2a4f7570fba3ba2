"""The systolic MAC array: Y = X W, dX = dY W^T and dW = X^T dY on one mesh, every operand read row by row."""
