"""The ledger of an account: one entry for each call, which never holds what was asked or answered."""
