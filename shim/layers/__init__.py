"""The three files of the layers directory, and other people's directories."""
