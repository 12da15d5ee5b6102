"""The cases behind a site’s worst figures: which they are, where their packets stand, and copies of those."""
