"""The directory `profile run --function` puts first on PYTHONPATH: it holds a sitecustomize."""
