"""The schemas of what tfzip writes, as files: `importlib.resources.files("tfzip.schemas")`."""
