"""The directory `alloc run --cycles` puts first on PYTHONPATH: it holds a sitecustomize."""
