"""CSV tables and case folders: what people open in a spreadsheet."""
