"""The adversary: changes to finished adapters that are to hide a backdoor, and what they cost."""
