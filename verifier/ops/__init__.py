"""One file per nonlinearity; affine ops grouped. `base` has the three kinds of op, `table` lists them all."""
