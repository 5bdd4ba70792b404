"""Face restoration: find the faces of a finished picture, paint each anew, put it back.

picture ── detector ──> five landmarks of each face ── geometry ──> the face, upright, in a square
square ── GFPGAN or CodeFormer ──> restored ── geometry ──> back into its place, with a soft edge
"""
