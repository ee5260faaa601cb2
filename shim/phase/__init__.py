"""What every wrapped build runs."""
