"""The child process in which a pickled model file is opened and written anew as .safetensors. Nothing else of the program opens a pickle.

`child` is its entry, `limits` what it takes away from itself first, `unpickling` the one call of `torch.load`, `contents` and
`hypernetworks` what of a file is a model and under which names, `writing` the file that comes out. `studio/converting.py` starts it.
"""
