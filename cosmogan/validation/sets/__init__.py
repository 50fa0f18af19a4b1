"""What is asked of whole sets of slices: copies, variety, coherence, partners, and whether a network can tell."""
