"""Which sides are compared with which, whether they may be, and the rows of the data set `comparisons`."""
