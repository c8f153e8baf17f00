"""Engines: where independent tasks are carried out, on this machine or on many.

``engine_table`` names them, ``task_pool`` is what each one gives: a pool that takes tasks and says how they ended.
"""
