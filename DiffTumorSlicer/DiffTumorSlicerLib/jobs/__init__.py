"""What runs for the person: the session, its jobs and the computer around them. No Qt."""
