"""Object stores: a folder in a bucket that serves as a workdir, a prepared set or a checkpoint.

``object_store`` asks the store, ``lease`` keeps two runs from one workdir, ``mirror`` keeps a local folder and its copy
in step, and ``workdirs`` opens what a command line or a config names.
"""
