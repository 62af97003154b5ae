"""Product qualification: the signal of a test, the verdict on its answer, and which test stands for another."""
