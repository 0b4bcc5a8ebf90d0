"""Derived forms of an instance: same values, another Transfer Syntax. On any doubt there is none."""
