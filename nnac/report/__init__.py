"""What was measured, as tables and pictures.  Everything here is made from result files alone."""
