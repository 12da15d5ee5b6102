"""Kernels of the statistics, in a folder of their own: an edit of anything beside a kernel compiles all kernels again."""
