# Where a warm parent of scripts begins. It goes on in ``_parent``: what an interpreter has read of its first file it
# takes apart in each process that leaves it, word by word.
exec(compile(__loader__.get_data(__file__[:-10] + "_parent.py"), "_parent.py", "exec"), {"main": globals()})  # type: ignore[name-defined]
