"""Many runs, here or on many machines: a sweep file expands to runs, an executor does them, a collector reads them."""
