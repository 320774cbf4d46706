"""The rules of the house as functions over files: no Salt and no other package, so that a commit hook can run them."""
