"""Compare two slice files and report; never imports the model."""
