"""Evidence: signed messages, the log they stand in, and certificates that anybody can check."""
