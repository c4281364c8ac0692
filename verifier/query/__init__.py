"""What a VNN-LIB query says: networks by name, their tensors, and a formula over the elements; without torch."""
