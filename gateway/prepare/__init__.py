"""Derived forms of an instance: in another Transfer Syntax, or as a recipe asks. On any doubt there is none."""
