"""What `launch.py` does before the program is installed: standard library only, readable for Python 3.8.

`home` knows what is installed, `install` does what is missing, `pip` runs pip and tells how far it is, `torch_build`
chooses the build of torch. Nothing here is imported by `studio`.
"""
