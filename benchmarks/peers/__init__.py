"""The same work by this package and by its peers, a module for each of them."""
