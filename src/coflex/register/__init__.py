"""The flexibility register: its records, the few states they go through, and who reads and writes which field."""
