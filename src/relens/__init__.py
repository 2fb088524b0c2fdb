"""relens: visual recognition and search that you run yourself."""
