"""The online stores, a file each: all of them keep the contract of `lookup/store.py`."""
