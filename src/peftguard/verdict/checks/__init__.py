"""What a person should know about an adapter, apart from any score."""
