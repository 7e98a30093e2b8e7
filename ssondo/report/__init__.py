"""Score tables, Table 1, Table 2, Fig. 2 and the HTML report."""
