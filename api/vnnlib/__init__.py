"""The standard solver interface of VNN-LIB 2.0: `provenn-vnnlib`.   Source: the VNN-LIB standard 2.0, chapter 5."""
