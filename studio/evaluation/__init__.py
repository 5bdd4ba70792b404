"""Measuring pictures: how alike two are. No models; numpy, scipy and Pillow are loaded when something is measured."""
