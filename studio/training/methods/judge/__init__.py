"""The judge: a small classifier that names what a picture of a drawn scene shows, so that the embedded model can be measured."""
