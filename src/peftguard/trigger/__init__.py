"""Which trigger wakes a backdoor: texts to try, and what the model does with them."""
