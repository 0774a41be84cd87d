"""Redis, in the bytes of Feast: keys and values in columns, commands, layouts."""
