"""What ATen calls mean, one family a file."""
