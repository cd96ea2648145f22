"""The board: draft a token, judge it, ask when in doubt, roll back when told so."""
