"""The words: what every other room speaks. Standard library and numpy only."""
