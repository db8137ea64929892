"""A pretend CUDA: the memory of the GPU is memory of this process."""
