"""PADBench: benign and backdoored adapters that share one recipe distribution, measured to fire."""
