"""The search for the smallest change that keeps a user's own training from exploding."""
