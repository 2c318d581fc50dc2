"""The search for the least change with which a user's own training does not explode."""
