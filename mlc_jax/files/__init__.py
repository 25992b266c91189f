"""The ground floor: atomic writes, digests and locks. Imports nothing of ours."""
