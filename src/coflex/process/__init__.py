"""The business, one module a step; all input and output through `ports`."""
