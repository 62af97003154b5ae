"""Pages: self-contained HTML files drawn from outcome documents."""
